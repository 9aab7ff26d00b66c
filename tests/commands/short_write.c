/* Loaded before the C library: has one write of a program be short. SHORT_WRITE says which, counted from 1 without those
 * to standard output and error, and how; SHORT_WRITE_HIT names a file that is made when it comes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

ssize_t write(int fd, const void *buffer, size_t length)
{
    static unsigned long number;
    static int full;
    const char *wanted = getenv("SHORT_WRITE");
    char *how;

    if (fd <= 2 || !wanted)
        return syscall(SYS_write, fd, buffer, length);
    if (full) {
        errno = ENOSPC;
        return -1;
    }
    if (++number != strtoul(wanted, &how, 10))
        return syscall(SYS_write, fd, buffer, length);
    close(open(getenv("SHORT_WRITE_HIT"), O_WRONLY | O_CREAT, 0600));
    if (!strcmp(how, " nothing"))
        return 0;
    full = !strcmp(how, " full");
    return syscall(SYS_write, fd, buffer, length / 2);
}

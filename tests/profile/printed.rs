//! Bad profiles and every word that is printed about them.

/// Profiles with what is printed about them; a first line `+` stands for the least that is a profile.
#[rustfmt::skip]
pub(crate) const PRINTED: &[(&str, &str)] = &[
    (
        "",
        "error: missing key `host` in the profile
 --> p.toml:1:1
  |
1 |
  | ^
  |
  = help: `host` is a table
",
    ),
    (
        r#"host = 1
[guest]
name = "a"
"#,
        "error: `host` has the wrong type
 --> p.toml:1:8
  |
1 | host = 1
  |        ^ expected a table, found a whole number

error: `guest` has the wrong type
 --> p.toml:2:1
  |
2 | [guest]
  | ^^^^^^^ expected an array of tables, found a table
  |
  = help: write the section as [[guest]]
",
    ),
    (
        r#"[host]
isolated-cpus = "2-7"
[[guest]]
"#,
        r#"error: missing key `housekeeping-cpus-per-node` or `housekeeping-cpus` in [host]
 --> p.toml:1:1
  |
1 | [host]
  | ^^^^^^
  |
  = help: `housekeeping-cpus-per-node` is a whole number, `housekeeping-cpus` a CPU list as in "0-1,8-9"

error: missing key `housekeeping-memory-per-node` in [host]
 --> p.toml:1:1
  |
1 | [host]
  | ^^^^^^
  |
  = help: write how much memory a node keeps, as in "6GiB", or a `count` of pages in [host.hugepages]

error: missing key `name` in [[guest]]
 --> p.toml:3:1
  |
3 | [[guest]]
  | ^^^^^^^^^
  |
  = help: `name` is a string

error: missing key `vcpus` in [[guest]]
 --> p.toml:3:1
  |
3 | [[guest]]
  | ^^^^^^^^^
  |
  = help: `vcpus` is a whole number

error: missing key `memory` in [[guest]]
 --> p.toml:3:1
  |
3 | [[guest]]
  | ^^^^^^^^^
  |
  = help: `memory` is a size in a string, as in "6GiB"
"#,
    ),
    (
        r#"+
housekeeping-cpus = "0-1"
"#,
        r#"error: `housekeeping-cpus` and `housekeeping-cpus-per-node` exclude each other
 --> p.toml:4:21
  |
4 | housekeeping-cpus = "0-1"
  |                     ^^^^^ remove one of the two
"#,
    ),
    (
        "+
huge-pages = 1
vcpus = 4
huge_pages.size = 1
",
        "error: unknown key `huge-pages` in [host]
 --> p.toml:4:1
  |
4 | huge-pages = 1
  | ^^^^^^^^^^
  |
  = help: did you mean `hugepages`?

error: unknown key `vcpus` in [host]
 --> p.toml:5:1
  |
5 | vcpus = 4
  | ^^^^^
  |
  = help: `vcpus` is a key of [[guest]]

error: unknown key `huge_pages` in [host]
 --> p.toml:6:1
  |
6 | huge_pages.size = 1
  | ^^^^^^^^^^
  |
  = help: did you mean `hugepages`?
",
    ),
    (
        r#"+
[hosts]
[[guest]]
name = "a"
vcpus = 2
memory = "2GiB"
numa_node = 1
ос = 1
[[guest.network]]
bridge = "br0"
mac-address = "x"
"#,
        r#"error: unknown key `hosts` in the profile
 --> p.toml:4:2
  |
4 | [hosts]
  |  ^^^^^
  |
  = help: did you mean `host`?

error: unknown key `numa_node` in [[guest]]
 --> p.toml:9:1
  |
9 | numa_node = 1
  | ^^^^^^^^^
  |
  = help: did you mean `numa-node`?

error: invalid TOML: invalid unquoted key, expected letters, numbers, `-`, `_`
  --> p.toml:10:1
   |
10 | ос = 1
   | ^^

error: unknown key `mac-address` in [[guest.network]]
  --> p.toml:13:1
   |
13 | mac-address = "x"
   | ^^^^^^^^^^^
   |
   = help: the keys of [[guest.network]] are `bridge`, `macvtap`, `virtual-function`, `vf-pool`, `vhost-user`, `socket-mode`, `mac`, `model`
"#,
    ),
    (
        r#"+
boot-loader = "manuel"
[host.hugepages]
count = {}
"#,
        r#"error: `manuel` cannot be used as `boot-loader`
 --> p.toml:4:15
  |
4 | boot-loader = "manuel"
  |               ^^^^^^^^ expected "auto" or "manual"
  |
  = help: did you mean "manual"?

error: `count` names no node
 --> p.toml:6:9
  |
6 | count = {}
  |         ^^
  |
  = help: write the pages of each node, as in { "0" = 26, "1" = 25 }
"#,
    ),
    (
        r#"+
[[guest]]
name = "a"
vcpus = 1
memory = "2GiB"
[[guest.disk]]
source = "/dev/a"
format = "qcow"
[[guest]]
name = "a"
vcpus = 3
threads-per-core = 2
memory = "2GiB"
[[guest.disk]]
source = "/dev/a"
"#,
        r#"error: a real-time Linux guest needs at least 2 vCPUs
 --> p.toml:6:9
  |
6 | vcpus = 1
  |         ^ one for its own housekeeping
  |
  = help: a guest that is not Linux may have 1: write os = "other"

error: `qcow` cannot be used as `format`
  --> p.toml:10:10
   |
10 | format = "qcow"
   |          ^^^^^^ expected "raw" or "qcow2"
   |
   = help: did you mean "qcow2"?

error: two guests are called `a`
  --> p.toml:12:8
   |
12 | name = "a"
   |        ^^^ first used in line 5

error: 3 vCPUs do not fill cores of 2 threads
  --> p.toml:13:9
   |
13 | vcpus = 3
   |         ^ expected an even number, for threads-per-core = 2

error: disk `/dev/a` is used twice
  --> p.toml:17:10
   |
17 | source = "/dev/a"
   |          ^^^^^^^^ first used in line 9 by guest `a`
"#,
    ),
    (
        r#"+
[knobs]
cpu.mitigations = "keep"
"#,
        r#"error: the override of `cpu` has the wrong type
 --> p.toml:5:1
  |
5 | cpu.mitigations = "keep"
  | ^^^ expected a string or a whole number, found a table
  |
  = help: quote the whole id, as in "cpu.mitigations" = "keep"
"#,
    ),
    (
        r#"+
boot-loader = "auto"
boot-loader = "auto"
[host]
boot-loader = "auto"
"#,
        r#"error: invalid TOML: duplicate key
 --> p.toml:5:1
  |
5 | boot-loader = "auto"
  | ^^^^^^^^^^^

error: invalid TOML: duplicate key
 --> p.toml:6:2
  |
6 | [host]
  |  ^^^^
"#,
    ),
    (
        r#"+
[[guest]]
name = "rt0
vcpus =
memory
numa-node = = 1
os = 1
os = 2
[[guest.disk]]
source = "x"
"#,
        r#"error: invalid TOML: invalid basic string, expected `"`
 --> p.toml:5:12
  |
5 | name = "rt0
  |            ^

error: invalid TOML: string values must be quoted, expected literal string
 --> p.toml:6:8
  |
6 | vcpus =
  |        ^

error: invalid TOML: key with no value, expected `=`
 --> p.toml:7:7
  |
7 | memory
  |       ^

error: invalid TOML: extra `=`, expected nothing
 --> p.toml:8:13
  |
8 | numa-node = = 1
  |             ^

error: `os` has the wrong type
 --> p.toml:9:6
  |
9 | os = 1
  |      ^ expected a string, found a whole number

error: invalid TOML: duplicate key
  --> p.toml:10:1
   |
10 | os = 2
   | ^^

error: `x` cannot be used as `source`
  --> p.toml:12:10
   |
12 | source = "x"
   |          ^^^ a disk is named by its absolute path, as in "/dev/vg0/rt0"
"#,
    ),
    (
        r#"[host
isolated-cpus = ""
[host.hugepages]
count = 0
[knobs]
a = 1.5
"#,
        "error: invalid TOML: unclosed table, expected `]`
 --> p.toml:1:6
  |
1 | [host
  |      ^

error: the override of `a` has the wrong type
 --> p.toml:6:5
  |
6 | a = 1.5
  |     ^^^ expected a string or a whole number, found a number with a fraction
",
    ),
    (
        "+
[[guest",
        "error: invalid TOML: unclosed array table, expected `]]`
 --> p.toml:4:8
  |
4 | [[guest
  |        ^
",
    ),
    (
        "+\n\tboot-loader\t=\t1\r\n# \u{1b}[31m\n\"ä\" = 1",
        r#"error: `boot-loader` has the wrong type
 --> p.toml:4:16
  |
4 |     boot-loader    =    1
  |                         ^ expected a string, found a whole number

error: invalid TOML: invalid comment character, expected printable characters
 --> p.toml:5:3
  |
5 | # ␛[31m
  |   ^

error: unknown key `ä` in [host]
 --> p.toml:6:1
  |
6 | "ä" = 1
  | ^^^
  |
  = help: the keys of [host] are `housekeeping-cpus-per-node`, `housekeeping-cpus`, `isolated-cpus`, `housekeeping-memory-per-node`, `boot-loader`, `libvirt-uri`, `kernel-arguments`, `hugepages`
"#,
    ),
    (
        r#"[host]
housekeeping-cpus = "0-1,x"
housekeeping-memory-per-node = "6GB"
boot-loader = 1
kernel-arguments = ["a b"]
[host.hugepages]
sise = "1GiB"
[[guest]]
name = "a/b"
vcpus = 0
memory = "1"
[[guest.disk]]
source = "x"
[knobs]
k = true
"#,
        r#"error: `0-1,x` cannot be used as `housekeeping-cpus`
 --> p.toml:2:26
  |
2 | housekeeping-cpus = "0-1,x"
  |                          ^ `x` is not a CPU number: write a list such as `0-3,8`

error: `6GB` cannot be used as `housekeeping-memory-per-node`
 --> p.toml:3:32
  |
3 | housekeeping-memory-per-node = "6GB"
  |                                ^^^^^ `GB` is not a binary unit: write `6GiB`

error: `boot-loader` has the wrong type
 --> p.toml:4:15
  |
4 | boot-loader = 1
  |               ^ expected a string, found a whole number

error: `a b` cannot be used as `kernel-arguments`
 --> p.toml:5:21
  |
5 | kernel-arguments = ["a b"]
  |                     ^^^^^ `a b` is not a kernel parameter name: use letters, digits, `_`, `-` and `.`, as in `kvm.nx`

error: unknown key `sise` in [host.hugepages]
 --> p.toml:7:1
  |
7 | sise = "1GiB"
  | ^^^^
  |
  = help: did you mean `size`?

error: `a/b` cannot be used as `name`
 --> p.toml:9:8
  |
9 | name = "a/b"
  |        ^^^^^ a guest name has no `/`: use letters, digits and _ . + -

error: `0` cannot be used as `vcpus`
  --> p.toml:10:9
   |
10 | vcpus = 0
   |         ^ expected 1 to 512

error: `1` cannot be used as `memory`
  --> p.toml:11:10
   |
11 | memory = "1"
   |          ^^^ `1` has no known unit: write a whole number with KiB, MiB, GiB or TiB, as in `6GiB`

error: `x` cannot be used as `source`
  --> p.toml:13:10
   |
13 | source = "x"
   |          ^^^ a disk is named by its absolute path, as in "/dev/vg0/rt0"

error: the override of `k` has the wrong type
  --> p.toml:15:5
   |
15 | k = true
   |     ^^^^ expected a string or a whole number, found a truth value
"#,
    ),
    (
        r#"+
[[guest]]
name = "a"
vcpus = 5
memory = "3GiB"
numa-nodes = [1, 0]
[[guest.network]]
mac = "52:54:00:00:00:01"
[[guest.network]]
bridge = "br0"
macvtap = "eth1"
[[guest.network]]
bridge = "br0"
socket-mode = "client"
[[guest.network]]
vf-pool = "vf"
model = "e1000"
mac = "52:54:00:00:00:01"
[[guest]]
name = "b"
vcpus = 2
memory = "2GiB"
numa-node = 1
numa-nodes = [0]
[[guest]]
name = "c"
vcpus = 2
memory = "2GiB"
numa-nodes = [1, 1]
[[guest]]
name = "d"
vcpus = 2
memory = "2GiB"
numa-nodes = []
[[guest.hostdev]]
device = "81:00.0"
[[guest.hostdev]]
device = "0000:81:00.0"
"#,
        r#"error: 5 vCPUs do not divide into 2 equal parts of whole cores
 --> p.toml:6:9
  |
6 | vcpus = 5
  |         ^ expected a multiple of 2
  |
  = help: each node gets an equal part of the guest, as a NUMA cell and a socket of it

error: 3GiB does not divide into 2 equal parts of whole pages
 --> p.toml:7:10
  |
7 | memory = "3GiB"
  |          ^^^^^^ expected a multiple of 2 x 1GiB
  |
  = help: each node gets an equal part of the guest, as a NUMA cell and a socket of it

error: a network interface has one connection
 --> p.toml:9:1
  |
9 | [[guest.network]]
  | ^^^^^^^^^^^^^^^^^ write exactly one of `bridge`, `macvtap`, `virtual-function`, `vf-pool`, `vhost-user`

error: a network interface has one connection
  --> p.toml:11:1
   |
11 | [[guest.network]]
   | ^^^^^^^^^^^^^^^^^ write exactly one of `bridge`, `macvtap`, `virtual-function`, `vf-pool`, `vhost-user`

error: `socket-mode` goes with `vhost-user` alone
  --> p.toml:16:15
   |
16 | socket-mode = "client"
   |               ^^^^^^^^ remove it

error: `model` goes with `bridge` or `macvtap` alone
  --> p.toml:19:9
   |
19 | model = "e1000"
   |         ^^^^^^^ remove it

error: MAC address `52:54:00:00:00:01` is used twice
  --> p.toml:20:7
   |
20 | mac = "52:54:00:00:00:01"
   |       ^^^^^^^^^^^^^^^^^^^ first used in line 10 by guest `a`

error: `numa-node` and `numa-nodes` exclude each other
  --> p.toml:26:14
   |
26 | numa-nodes = [0]
   |              ^^^ remove one of the two

error: `numa-nodes` has node 1 twice
  --> p.toml:31:14
   |
31 | numa-nodes = [1, 1]
   |              ^^^^^^ expected different nodes, as in [0, 1]

error: `numa-nodes` is empty
  --> p.toml:36:14
   |
36 | numa-nodes = []
   |              ^^ expected different nodes, as in [0, 1]

error: device `0000:81:00.0` is used twice
  --> p.toml:40:10
   |
40 | device = "0000:81:00.0"
   |          ^^^^^^^^^^^^^^ first used in line 38 by guest `d`
"#,
    ),
];

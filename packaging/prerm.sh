#!/bin/sh
# Before the package is removed: says how to take its settings back, and changes nothing.
set -e
if [ "$1" = remove ] && [ -e /var/lib/rtkvm-tune/state.json ]; then
    echo "rtkvm-tune: what it has set stays as it is, and the boot unit needs the program. To take everything back," >&2
    echo "rtkvm-tune: install the package again and run \`rtkvm-tune revert\`, then remove it." >&2
fi
exit 0

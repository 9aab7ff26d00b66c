#!/bin/sh
# Before the package is removed: says how to take its settings back, and changes nothing.
set -e
state=/var/lib/rtkvm-tune
if [ "$1" = remove ] && [ -e "$state/journal.json" ]; then
    echo "rtkvm-tune: a run was interrupted and is not ended: install the package again and run \`rtkvm-tune recover\`" >&2
    echo "rtkvm-tune: and \`rtkvm-tune revert\`, then remove it." >&2
elif [ "$1" = remove ] && [ -e "$state/state.json" ] && ! grep -q '^  "baseline": \[\],$' "$state/state.json"; then
    echo "rtkvm-tune: what it has set stays as it is, and the boot unit needs the program. To take everything back," >&2
    echo "rtkvm-tune: install the package again and run \`rtkvm-tune revert\`, then remove it." >&2
fi
exit 0

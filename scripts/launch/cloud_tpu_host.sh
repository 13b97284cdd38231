# On each host of a slice. Its image has an older Python than seedjax takes.
set -euo pipefail
mkdir -p seedjax && tar -xzf seedjax.tgz -C seedjax && cd seedjax
[ -x .venv/bin/python ] || {
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --seed --python 3.12 .venv
}
scripts/setup @EXTRA@
exec .venv/bin/@COMMAND@

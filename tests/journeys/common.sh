# What all journeys share. A journey is called as NAME.sh FOLDER, an empty folder with the models of this repository in
# models/ below it. PYTHON is the interpreter that has bnfold's dependencies.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$1"
export PYTHONPATH=$root ORT_DISABLE_TELEMETRY=1
python() { "${PYTHON:-python3}" "$@"; }
bnfold() { python "$root/cli.py" "$@"; }

wanted() { # TEXT FILE: the file has to hold the text
  grep -qF -- "$1" "$2" || { echo "not in $2: $1"; cat "$2"; exit 1; }
}

ends_with() { # STATUS COMMAND...: the command has to end with that status
  local status=0
  "${@:2}" || status=$?
  [ "$status" = "$1" ] || { echo "exit status $status, not $1: ${*:2}"; exit 1; }
}

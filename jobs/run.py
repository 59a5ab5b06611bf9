"""The entry point of a cluster job: `ray job submit --working-dir . -- python jobs/run.py jobs/specs/feature.yaml`.

Takes the arguments of `raysp run`. The cluster's scheduler drives the run; this process only submits, watches and prints.
"""

import sys

from raysp.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])

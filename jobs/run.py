"""The entry point of a cluster job: `ray job submit --working-dir . -- python jobs/run.py jobs/specs/feature.yaml`.

Takes what `raysp run` takes. The run is driven by the cluster's scheduler; this process only submits, watches and prints.
"""

import sys

from raysp.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]])

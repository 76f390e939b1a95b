"""`python -m sparseunet VERB ...` is `sparseunet VERB ...`."""

import sys

from sparseunet.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

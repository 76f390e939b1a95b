"""`python -m sparseunet VERB ...` is `sparseunet VERB ...`."""

import sys

from sparseunet.cli.main import main

sys.exit(main())

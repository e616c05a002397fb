"""From a dataset version to an adapter: plan, encode, train, check, keep."""

import os

# Read when torch's thread pool starts: threads that wait by spinning make a step several times
# slower as soon as anything else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

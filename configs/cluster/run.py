"""What `ray submit CLUSTER.yaml configs/cluster/run.py -- run CONFIG …` runs on the head, in ~/study."""

import os
import sys
from pathlib import Path

os.chdir(Path.home() / "study")
os.execv(sys.executable, [sys.executable, "-m", "study", *sys.argv[1:]])

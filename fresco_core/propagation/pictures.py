"""Types that the modules of propagation share.

Shape suffixes: H, W rows and columns; C channels; 2 = horizontal (x), vertical (y) displacement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H,W,C), RGB where it has three channels."""
Flow = NDArray[np.float32]
"""(2,H,W) in pixels: p of the flow's grid corresponds to p + flow(p) of the other picture."""
Mask = NDArray[np.bool_]
"""(H,W)."""

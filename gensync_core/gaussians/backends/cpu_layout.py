"""Sizes, thresholds and array layouts that the CPU kernels share.

Notation of the kernels: a splat is a projected Gaussian with centre g and 2-D covariance [[a, b], [b, c]]; (dx, dy) = g -
pixel. With the shear s = b/c and the rest d = a - b^2/c (so that covariance = L D L^T), and k = log2(e)/2,

    alpha = 2^power,   power = log2(opacity) - u^2 - w^2,   u = sqrt(k/d) (dx - s dy),   w = sqrt(k/c) dy.

Squares do not cancel, unlike the three terms of the conic, which lose all digits for long thin splats in float32. And
within a row of pixels w is one number and u moves by one multiplication.
"""

import math

import numpy as np

# One row of a tile is one vector.
TILE_WIDTH = 8
TILE_HEIGHT = 32

# Splats per work item of the per-splat kernels.
BLOCK = 256

NEAR = np.float32(0.01)
# gsplat's low-pass filter: variance in px^2 that is added to every splat.
BLUR = np.float32(0.3)
# gsplat 1.5.3 clamps alpha here (its newer source at 0.99); the gradient is zero where it is clamped.
ALPHA_MAX = np.float32(0.999)
# Contributions below 1/255 are dropped; in powers of two.
ALPHA_MIN_LOG2 = np.float32(-math.log2(255.0))
# A pixel is finished when less light than this would pass.
TRANSMITTANCE_MIN = np.float32(1e-4)
LOG2_E = np.float32(math.log2(math.e))

# Camera, one float32 vector: rotation (row major), translation, intrinsics, limits of x/z and y/z, image size.
CAM_R = 0
CAM_T = 9
CAM_FX, CAM_FY, CAM_CX, CAM_CY = 12, 13, 14, 15
CAM_X_MAX, CAM_X_MIN, CAM_Y_MAX, CAM_Y_MIN = 16, 17, 18, 19
CAM_WIDTH, CAM_HEIGHT = 20, 21
CAM_SIZE = 22

# One record per splat: all that the tile loops read, in one cache line.
REC_X, REC_Y = 0, 1
REC_U, REC_SHEAR, REC_W = 2, 3, 4  # sqrt(k/d), sqrt(k/d) s, sqrt(k/c)
REC_LOG_OPACITY = 5
REC_RED, REC_GREEN, REC_BLUE = 6, 7, 8
REC_OPACITY = 9
# The ellipse alpha = 1/255 around the centre, as y = slope x +- sqrt(height2 - shrink x^2), topmost at x = tip.
REC_SLOPE, REC_HEIGHT2, REC_SHRINK, REC_TIP = 10, 11, 12, 13
REC_SIZE = 16

# What a tile leaves per (splat, tile) slot: sums of g = dL/d(ln alpha) times 1, u, u^2, dy, u dy, dy^2, then of colour.
MOM_1, MOM_U, MOM_UU, MOM_Y, MOM_UY, MOM_YY, MOM_RED = 0, 1, 2, 3, 4, 5, 6  # green and blue follow red
MOMENTS = 9

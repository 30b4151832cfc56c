"""A synthetic chest CT, to try the module without patient data."""

import numpy as np

_AIR, _LUNG, _SOFT, _BONE, _LESION = -1000, -850, 40, 700, 60


def chest_phantom(shape: tuple = (48, 128, 160), spacing_mm: tuple = (5.0, 2.4, 2.4)) -> tuple:
    """Draw a chest in Hounsfield units with a round lesion in the left lung.

    Parameters
    ----------
    shape : (K, J, I)
    spacing_mm : (k, j, i)

    Returns
    -------
    voxels : int16 array of that shape
    affine : float64 array, shape (4, 4)
        From (i, j, k) to RAS in mm; i runs to the left, j to the back, as CT is stored.
    """
    k, j, i = np.meshgrid(*(np.linspace(-1, 1, count) for count in shape), indexing="ij")
    voxels = np.full(shape, _AIR, dtype=np.int16)

    def draw(center: tuple, radii: tuple, value: int) -> None:
        x, y, z = (
            (axis - middle) / radius for axis, middle, radius in zip((i, j, k), center, radii)
        )
        voxels[x**2 + y**2 + z**2 <= 1] = value

    draw((0, 0, 0), (0.9, 0.75, 4.0), _SOFT)
    for side in (-1, 1):
        draw((0.42 * side, -0.05, 0), (0.33, 0.5, 1.1), _LUNG)
        for height in (-0.6, -0.2, 0.2, 0.6):
            draw((0.82 * side, -0.1, height), (0.03, 0.35, 0.05), _BONE)
    draw((0, 0.5, 0), (0.11, 0.13, 4.0), _BONE)
    draw((0, -0.66, 0.1), (0.1, 0.04, 0.7), _BONE)
    draw((0.12, -0.25, -0.2), (0.28, 0.26, 0.5), _SOFT)
    draw((0.5, 0.12, 0.25), (0.075, 0.09, 0.1), _LESION)
    noise = np.random.default_rng(0).normal(0, 12, shape)
    affine = np.diag([-spacing_mm[2], -spacing_mm[1], spacing_mm[0], 1.0])
    extent = [(count - 1) / 2 for count in reversed(shape)]
    affine[:3, 3] = -affine[:3, :3] @ extent
    return (voxels + noise).astype(np.int16), affine

"""What is changed about training images each epoch, as functions of whole batches."""

from nearfar.data.augmentation.colour import Colours, draw_colours, shift_colours
from nearfar.data.augmentation.crops import TenCropped, crop, crop_flip, draw_crop_flip, ten_crop
from nearfar.data.augmentation.plan import Augmentation, Draws
from nearfar.data.augmentation.sizes import box_sides, draw_exchanges, draw_scales
from nearfar.data.augmentation.warping import draw_warps, warp

__all__ = [
    "Augmentation",
    "Colours",
    "Draws",
    "TenCropped",
    "box_sides",
    "crop",
    "crop_flip",
    "draw_colours",
    "draw_crop_flip",
    "draw_exchanges",
    "draw_scales",
    "draw_warps",
    "shift_colours",
    "ten_crop",
    "warp",
]

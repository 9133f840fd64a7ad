"""Photographs from strangers: judged by their content, made small, and written anew without whatever came along.

Position, time and device that a camera writes into a picture (EXIF) are gone afterwards, since only the pixels are
taken over.
"""

import io
import threading

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

MAX_BYTES = 12 * 2**20
_FORMATS = ("JPEG", "PNG", "WEBP")
_MAX_PIXELS = {"JPEG": 64_000_000}  # which is unpacked at the size that is needed
_MAX_OTHER = 16_000_000
_AT_ONCE = threading.Semaphore(1)
_POLE = 90
_SIDE = 1600
_QUALITY = 80


class PhotoError(Exception):
    """The bytes are no photograph that can be taken; the message says why."""


def position(data: bytes) -> tuple[float, float] | None:
    """Where a photograph says that it was taken: latitude and longitude in degrees, if it says so."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            place = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        lat, lon = (
            round(sum(float(part) / 60**power for power, part in enumerate(place[tag])), 5)
            for tag in (ExifTags.GPS.GPSLatitude, ExifTags.GPS.GPSLongitude)
        )
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    if not (lat <= _POLE and lon <= 2 * _POLE):
        return None
    south, west = place.get(ExifTags.GPS.GPSLatitudeRef) == "S", place.get(ExifTags.GPS.GPSLongitudeRef) == "W"
    return -lat if south else lat, -lon if west else lon


def rewritten(data: bytes) -> bytes:
    """The picture as a JPEG of at most 1600 pixels a side, upright, with nothing but pixels.

    Raises:
        PhotoError: If it is no JPEG, PNG or WebP, or too large to be unpacked.
    """
    try:
        with _AT_ONCE, Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            most = _MAX_PIXELS.get(str(image.format), _MAX_OTHER)
            if image.width * image.height > most:
                msg = f"the picture has more than {most // 10**6} million pixels"
                raise PhotoError(msg)
            image.draft("RGB", (_SIDE, _SIDE))
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        msg = "this is no JPEG, PNG or WebP picture, or a damaged one"
        raise PhotoError(msg) from error
    upright.thumbnail((_SIDE, _SIDE))
    plain = Image.frombytes("RGB", upright.size, upright.tobytes())
    out = io.BytesIO()
    plain.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return out.getvalue()

"""Writes the seeds of the fuzz target `image`: one small picture per kind of file, orientation and profile.

Run from anywhere: python tests/reference/fuzz_images.py (Pillow 13). The picture is smooth with an edge, so that every
kind of block and predictor is used.
"""

import pathlib
import struct

from PIL import Image, ImageCms

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "fuzz" / "corpus" / "image"
WIDTH, HEIGHT = 35, 22


def picture() -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    image.putdata(
        [
            (x * 7, y * 11, 255 - 3 * (x + y) if x < 20 else 40)
            for y in range(HEIGHT)
            for x in range(WIDTH)
        ]
    )
    return image


def sixteen_bits() -> Image.Image:
    levels = [(x * 1800 + y * 37) % 65536 for y in range(HEIGHT) for x in range(WIDTH)]
    return Image.frombytes("I;16", (WIDTH, HEIGHT), struct.pack(f"<{len(levels)}H", *levels))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    color = picture()
    gray, cmyk, palette = color.convert("L"), color.convert("CMYK"), color.quantize(13)
    alpha = color.copy()
    alpha.putalpha(gray)
    gray_alpha = alpha.convert("LA")
    bits = color.convert("1")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    # More than a megapixel of one level: the smallest that is decoded at a reduced scale.
    large = Image.new("L", (1100, 1000), 90)

    def save(name: str, image: Image.Image, **options) -> None:
        image.save(FOLDER / name, **options)

    save("baseline-444.jpg", color, subsampling="4:4:4", quality=80)
    save("baseline-422.jpg", color, subsampling="4:2:2", quality=80)
    save("baseline-420.jpg", color, subsampling="4:2:0", quality=80, restart_marker_blocks=2)
    save("progressive-444.jpg", color, subsampling="4:4:4", progressive=True, quality=80)
    save("progressive-420.jpg", color, subsampling="4:2:0", progressive=True, quality=80)
    save("gray.jpg", gray, quality=80)
    save("progressive-gray.jpg", gray, progressive=True, quality=80)
    save("cmyk.jpg", cmyk, quality=80)
    save("rgb.jpg", color, keep_rgb=True, quality=80)
    save("turned.jpg", color, exif=exif(6), quality=60)
    save("profile.jpg", color, icc_profile=profile, quality=60)
    save("lab-profile.jpg", color, icc_profile=lab, quality=60)
    save("large.jpg", large, quality=30, optimize=True)
    save("large-progressive.jpg", large, quality=30, progressive=True)

    save("color.png", color)
    save("alpha.png", alpha)
    save("gray.png", gray)
    save("gray-alpha.png", gray_alpha)
    save("palette.png", palette, bits=4)
    save("transparent-palette.png", palette, bits=4, transparency=3)
    save("one-bit.png", bits)
    save("sixteen-bits.png", sixteen_bits())
    save("turned.png", color, exif=exif(8))
    save("profile.png", color, icc_profile=profile)
    save("animated.png", color, save_all=True, append_images=[color.transpose(Image.Transpose.ROTATE_180)])

    save("still.gif", palette)
    save("animated.gif", palette, save_all=True, append_images=[gray.convert("P")], transparency=2)
    save("interlaced.gif", palette, interlace=1)

    save("color.bmp", color)
    save("palette.bmp", palette)
    save("one-bit.bmp", bits)
    save("alpha.bmp", alpha)

    for compression in [None, "tiff_lzw", "packbits", "tiff_adobe_deflate"]:
        save(f"{compression or 'plain'}.tiff", color, compression=compression)
    save("jpeg.tiff", color, compression="jpeg")
    save("fax.tiff", bits, compression="group4")
    save("cmyk.tiff", cmyk, compression="tiff_lzw")
    save("gray.tiff", gray)
    save("palette.tiff", palette)
    save("sixteen-bits.tiff", sixteen_bits())
    save("turned.tiff", color, exif=exif(5), compression="tiff_lzw")

    save("lossless.webp", alpha, lossless=True)
    save("lossy.webp", color, quality=60)
    save("lossy-alpha.webp", alpha, quality=60)
    save("turned.webp", color, quality=40, exif=exif(3))
    save("profile.webp", color, quality=40, icc_profile=profile)
    save("animated.webp", color, save_all=True, append_images=[color.convert("RGB").rotate(90)], quality=30)

    total = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{len(list(FOLDER.iterdir()))} files, {total} bytes")


main()

"""Small pictures of the tutorials, from the figures in the executed notebooks: `python docs/thumbnails.py`.

A notebook's picture is its first figure, or that of the cell with the tag `thumbnail`.
"""

from base64 import b64decode
from io import BytesIO
from json import loads
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "_static" / "thumbnails"
SIZE = (360, 225)


def figure(notebook: Path) -> Image.Image:
    """The figure that stands for a notebook."""
    cells = [cell for cell in loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    chosen = [cell for cell in cells if "thumbnail" in cell["metadata"].get("tags", [])] or cells
    outputs = [output.get("data", {}) for cell in chosen for output in cell["outputs"]]
    first = next(data["image/png"] for data in outputs if "image/png" in data)
    return Image.open(BytesIO(b64decode(first))).convert("RGB")


def small(picture: Image.Image) -> Image.Image:
    """The whole picture within SIZE, on white."""
    picture.thumbnail(SIZE, Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", SIZE, "white")
    canvas.paste(picture, ((SIZE[0] - picture.width) // 2, (SIZE[1] - picture.height) // 2))
    return canvas.quantize(64, dither=Image.Dither.NONE)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for notebook in sorted((ROOT / "tutorials").glob("*.ipynb")):
        small(figure(notebook)).save(FOLDER / f"{notebook.stem}.png", optimize=True)

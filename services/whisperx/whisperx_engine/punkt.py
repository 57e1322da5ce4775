"""Where sentences end: what alignment needs of NLTK, without a download.

The library wants NLTK's trained models (`punkt_tab`) and fetches them where they are missing. This
module supplies models of our own, as the last resort: a few sure abbreviations for each language
that the library asks for. With them a period ends a sentence unless it belongs to an abbreviation
or an initial, or to a number that a small letter follows.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from .sources import MODELS

_ABBREVIATIONS = {
    "czech": "atd atp apod např mj tj tzv resp prof dr ing mgr č str sv",
    "danish": "bl.a dvs f.eks fx osv mht ca nr hr prof dr kl",
    "dutch": "bijv bv d.w.z m.a.w o.a enz ca nr dhr mevr mw prof dr ir drs",
    "english": "mr mrs ms dr prof st jr sr vs etc e.g i.e a.m p.m u.s u.k inc ltd gen capt sgt",
    "estonian": "jne nt st lk nr hr pr dr prof",
    "finnish": "esim mm ym yms jne ns n nro klo prof tri",
    "french": "m mm dr pr st ste etc cf p.ex env av apr j.-c",
    "german": "bzw ca d.h dr etc evtl fr ggf hr inkl max min mind nr o.ä prof s.o st str tel u.a "
    "usw vgl z.b z.t zzgl",
    "greek": "κ κα δρ κ.λπ κ.ά π.χ δηλ π.μ μ.μ σελ αρ",
    "italian": "sig sigg dott dr prof ing avv ecc es p.es n pag ca s.p.a",
    "malayalam": "ഡോ ശ്രീ പ്രൊഫ",
    "norwegian": "bl.a dvs f.eks osv mht ca nr hr fr prof dr kl",
    "polish": "np m.in itd itp tzn tzw dr prof inż mgr nr ul św godz r",
    "portuguese": "sr sra srs dr dra prof profa etc p.ex pág nº av v.exa",
    "russian": "т.е т.д т.п т.к др пр г гг ул им см стр руб тыс млн проф",
    "slovene": "npr itd ipd tj t.i oz g ga dr prof št str sv",
    "spanish": "sr sra srta d dña dr dra prof etc ej p.ej pág núm av ud uds ee.uu",
    "swedish": "bl.a dvs d.v.s t.ex osv m.m m.fl ca nr kl prof dr",
    "turkish": "dr prof doç av sn vb vs yy no mah cad sok",
}
_GERMAN_MONTHS = (
    "januar februar märz april mai juni juli august september oktober november dezember"
)
_FILES = ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt")


def provide(models: Path = MODELS) -> None:
    """Let NLTK find its models in the image, else ours; both after every folder it knows."""
    import nltk.data

    for folder in (str(models / "nltk_data"), _own()):
        if folder not in nltk.data.path:
            nltk.data.path.append(folder)


@cache
def _own() -> str:
    """Return the folder of our models; NLTK reads files only. It vanishes with the process."""
    folder = tempfile.mkdtemp(prefix="punkt-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _write(Path(folder))
    return folder


def _write(root: Path) -> None:
    for language, abbreviations in _ABBREVIATIONS.items():
        folder = root / "tokenizers" / "punkt_tab" / language
        folder.mkdir(parents=True)
        for name in _FILES:
            (folder / name).touch()
        lines = "".join(f"{word}\n" for word in abbreviations.split())
        (folder / "abbrev_types.txt").write_text(lines, encoding="utf-8")
    # "am 3. Mai": elsewhere months have small letters, which say that the sentence goes on.
    dates = "".join(f"##number##\t{month}\n" for month in _GERMAN_MONTHS.split())
    german = root / "tokenizers" / "punkt_tab" / "german"
    (german / "collocations.tab").write_text(dates, encoding="utf-8")

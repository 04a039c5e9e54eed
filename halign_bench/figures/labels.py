"""What a score is called in a figure: as papers write it, with what measured it and an arrow to the better side."""

from __future__ import annotations

from halign_bench.record import SPEED, parse_key

NAMES = {
    "fid": "FID", "fvd": "FVD", "kid": "KID", "sync_c": "Sync-C", "sync_d": "Sync-D", "sync_offset": "Sync offset",
    "hkc": "HKC", "hkc_coverage": "HKC coverage", "hkv": "HKV", "ssim_hand": "SSIM-Hand", "psnr_hand": "PSNR-Hand",
    "csim": "CSIM", "ssim": "SSIM", "psnr": "PSNR", "lpips": "LPIPS", "motion_gap": "Motion gap",
}  # fmt: skip
SECONDS = "seconds of sampling per generated second"


def arrow(higher_is_better: bool | None) -> str:
    """
    >>> arrow(True), arrow(False), arrow(None)
    (' ↑', ' ↓', '')
    """
    return "" if higher_is_better is None else " ↑" if higher_is_better else " ↓"


def label(key: str, higher_is_better: bool | None = None) -> str:
    """
    >>> label("sync_c@puppet/nfe20", True)
    'Sync-C@puppet ↑'
    """
    name, where, _ = parse_key(key)
    if name == SPEED:
        return SECONDS
    return f"{NAMES.get(name, name)}{f'@{where}' if where else ''}{arrow(higher_is_better)}"


def parted(key: str, higher_is_better: bool | None = None) -> tuple[str, str]:
    """The same in two, the second being "" where nothing says what measured it.

    >>> parted("sync_c@puppet/nfe20", True)
    ('Sync-C ↑', '@puppet')
    """
    name, at, where = label(key).partition("@")
    return name + arrow(None if name == SECONDS else higher_is_better), at + where


def two_lines(key: str) -> str:
    """For narrow panels.

    >>> two_lines("hkc@puppet")
    'HKC\\n@puppet'
    """
    return "\n".join(part for part in parted(key) if part)


__all__ = ["SECONDS", "arrow", "label", "parted", "two_lines"]

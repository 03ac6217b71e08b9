"""The thresholds and bounds of stage tracking."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.stage.registration import Shift


@dataclass(frozen=True, slots=True)
class StageConfig:
    """When a keyframe is made, how far is searched, and what is too poor to start an island."""

    keyframe_overlap: float = 0.75
    """A frame that shares less than this with every keyframe becomes one."""
    keyframe_overlap_islands: float = 0.85
    """The same while there are several islands: any frame may be the one that joins two of them."""
    keyframe_overlap_smeared: float = 0.3
    """The same for a frame that the stage's motion smeared: what rests in its place is worth waiting for."""
    max_smear: float = 1.2
    """Above it a picture is taken for smeared; as a keyframe it is replaced as soon as a sharper one comes."""
    link_overlap: float = 0.06
    """A new keyframe is measured against those that share more than this with it."""
    max_links: int = 6
    max_search: int = 256
    """Keyframes that one frame that fits nowhere is compared with at once."""
    max_search_poor: int = 8
    """The same for a frame that is too poor to be counted."""
    poor_strength: float = 18.0
    """What is asked of a match of such a frame; it only says where the stage is, and no cell depends on it."""
    comparisons_per_frame: int = 12
    """Keyframes of different islands compared in passing, at about 0.2 ms each."""
    few_islands: int = 8
    """With more islands the fields hardly belong together, and one comparison a frame is made."""
    max_pending: int = 20_000
    """Comparisons between islands that wait; beyond it the oldest are given up."""
    max_at_end: int = 20_000
    """Comparisons between islands that are made at the end where some were given up before; 4 s at most."""
    sure_strength: float = 52.0
    """A match this strong is beyond doubt; others join islands, or find a stage that jumped, only in pairs."""
    same_px: float = 6.0
    """Two matches that put an island at places no further apart say the same."""
    max_surprise: float = 0.15
    """A link that would move a keyframe by more than this share of the field is not believed."""
    settle_px: float = 0.25
    """A link that is off by less does not make the island settle anew."""
    settle_all_px: float = 3.0
    """A link that is off by less only moves what is near."""
    min_contrast: float = 0.004
    """Of a picture that may start an island; measured fields have 0.008 and more, blank ones with noise 0.002."""
    min_coherence: float = 0.15
    """Of a picture that may start an island; measured fields have 0.55 and more, pure noise 0."""
    max_turn_rad: float = 0.015
    max_growth: float = 0.015
    """A camera turned or a magnification changed by more is not registered. Real neighbours differ by up to 0.009."""
    max_start_smear: float = 1.5
    """While the stage is being followed, a picture smeared more than this starts no island: it will come to rest."""

    def is_beyond_doubt(self, shift: Shift) -> bool:
        return shift.strength >= self.sure_strength

    def is_distorted(self, shift: Shift) -> bool:
        """Whether the camera was turned or its magnification changed between two frames that match."""
        return shift.overlap > 0.3 and (abs(shift.turn_rad) > self.max_turn_rad or abs(shift.growth) > self.max_growth)

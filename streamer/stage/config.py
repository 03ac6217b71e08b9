"""The thresholds and bounds of stage tracking."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.stage.registration import Shift


@dataclass(frozen=True, slots=True)
class StageConfig:
    """When to make a keyframe, how far to search, and which frames are too poor to start an island."""

    keyframe_overlap: float = 0.75
    """A frame that overlaps every keyframe by less than this becomes a keyframe."""
    keyframe_overlap_islands: float = 0.85
    """The same while there are several islands, since any frame may join two of them."""
    keyframe_overlap_smeared: float = 0.3
    """The same for a frame with motion blur: a sharp one of that place is worth waiting for."""
    max_smear: float = 1.2
    """A picture above it counts as smeared. A smeared keyframe is replaced by the next sharper frame."""
    link_overlap: float = 0.06
    """A new keyframe is registered with those that it overlaps by more than this."""
    max_links: int = 6
    max_search: int = 256
    """Keyframes compared at once with a frame that fits nowhere."""
    max_search_poor: int = 8
    """The same for a frame too poor to be counted."""
    max_by_stage: int = 2
    """Keyframes of other islands that a new one is compared with at once because a stage puts them there."""
    poor_strength: float = 18.0
    """Strength required of a match of such a frame. It only locates the stage: no cell depends on it."""
    comparisons_per_frame: int = 12
    """Pairs of keyframes of different islands compared per frame, about 0.2 ms each."""
    few_islands: int = 8
    """With more islands the fields hardly belong together, and only one pair is compared per frame."""
    max_pending: int = 20_000
    """Comparisons between islands that may wait; beyond it the oldest are given up."""
    max_at_end: int = 20_000
    """Comparisons between islands made at the end if some were given up before; 4 s at most."""
    sure_strength: float = 52.0
    """A match this strong is beyond doubt. Weaker ones join islands, or locate a stage that jumped, only in pairs."""
    same_px: float = 6.0
    """Two matches agree if they put an island at places no further apart than this."""
    max_surprise: float = 0.15
    """A link that would move a keyframe by more than this share of the field is rejected."""
    settle_px: float = 0.25
    """A link that is off by less does not settle the island again."""
    settle_all_px: float = 3.0
    """A link that is off by less moves only the keyframes near it."""
    min_contrast: float = 0.004
    """Of a picture that may start an island; measured fields have 0.008 and more, blank ones with noise 0.002."""
    min_coherence: float = 0.15
    """Of a picture that may start an island; measured fields have 0.55 and more, pure noise 0."""
    max_turn_rad: float = 0.015
    max_growth: float = 0.015
    """A camera turned or a magnification changed by more is not registered. Real neighbours differ by up to 0.009."""
    max_start_smear: float = 1.5
    """While the stage is followed, a picture smeared more than this starts no island: the stage will come to rest."""

    def is_beyond_doubt(self, shift: Shift) -> bool:
        return shift.strength >= self.sure_strength

    def is_distorted(self, shift: Shift) -> bool:
        """Whether the camera was turned or its magnification changed between two frames that match."""
        return shift.overlap > 0.3 and (abs(shift.turn_rad) > self.max_turn_rad or abs(shift.growth) > self.max_growth)

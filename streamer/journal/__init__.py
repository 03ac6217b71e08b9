"""The journal: an SQLite file of what was seen, so that no count is lost.

Every frame is one transaction, committed before anything of it is published: the frame, its boxes and looks as exact
numbers, the changes of its cells, the messages, and the changes of the stage tracker. So whatever was published is in
the journal, whenever the process is killed. What the journal has beyond that was never published.

How a session is resumed. The slide map is a pure function of the stored places, boxes and looks of the frames, and the
same code could compute it again (some ms a frame); `recount` does just that. To resume a long session in seconds, every
1000th frame's transaction stores the slide map and the counts as the session's only checkpoint, and only later frames
are counted again. (Storing cells as they change was rejected: most frames change hundreds.) The stage tracker can't be
computed again without a picture of every frame (80 KB each). Its state is stored instead: keyframes and their links,
written when they change, a reduced picture of each keyframe, and that of the last frame. The latter also shows whether
a source is the same slide: on resuming, the last frame is read again and compared.

Classes that people gave to cells by command are part of the count. They are stored with the frame that they followed,
and applied again after it. All other commands are stored too, refused ones with the reason.

Speed and safety. WAL with synchronous = NORMAL: a commit writes to the log without waiting for the disk. It survives
the process (kill -9), and the file is never corrupt. A power cut or a system crash can cost what the system had not
written yet, at most what came since the log was last moved into the file (8 MB, some 50 frames). The journal then ends
before what was published. Only the end of a session waits for the disk: a final differential that was published is in
the journal after a power cut too.

A journal may come from anywhere, so that nothing in it is believed: its tables are compared with ours and nothing in it
runs (schema), each column has its type and limits (columns), and what counting can't take is a JournalError (replay).

What people say of a session that has ended is in a table of its own, `review_events`, one row an event (reviewing,
signing): `recounted` has it in its count. A session of which anything was said so is not gone on with.

rows: what is stored. schema: tables, opening, faults. columns: types and limits. writer: storing a session. reader:
reading it; stage: the stage tracker of it; positions: what its source's own stage said. replay: counting its frames
again; recounting: the differential that they come to. run: the sessions of a run, new or resumed.
"""

from streamer.counting.slide_count import Checkpoint, SeenFrame
from streamer.journal.columns import reading
from streamer.journal.history import JournalHistory
from streamer.journal.reader import JournalReader, StoredOptions, StoredSession
from streamer.journal.recounting import (
    Recounted,
    decoded,
    differences,
    last_published,
    opened,
    published,
    recounted,
)
from streamer.journal.replay import replay
from streamer.journal.reviewing import is_signed, review_events, review_of
from streamer.journal.rows import GivenCommand, ModelId, Rules, decision_of, rules_of
from streamer.journal.run import JournaledSource, RunJournal
from streamer.journal.schema import JournalError, JournalInUseError, fault
from streamer.journal.signing import canonical, sha256_of, signed_form
from streamer.journal.writer import Emission, Journal, SessionJournal

__all__ = [
    "Checkpoint",
    "Emission",
    "GivenCommand",
    "Journal",
    "JournalError",
    "JournalHistory",
    "JournalInUseError",
    "JournalReader",
    "JournaledSource",
    "ModelId",
    "Recounted",
    "Rules",
    "RunJournal",
    "SeenFrame",
    "SessionJournal",
    "StoredOptions",
    "StoredSession",
    "canonical",
    "decision_of",
    "decoded",
    "differences",
    "fault",
    "is_signed",
    "last_published",
    "opened",
    "published",
    "reading",
    "recounted",
    "replay",
    "review_events",
    "review_of",
    "rules_of",
    "sha256_of",
    "signed_form",
]

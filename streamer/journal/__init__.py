"""The journal: an SQLite file of what was seen, so that no count is lost.

Every frame is one transaction, made before anything of it is published: the frame, its boxes and looks as exact
numbers, what became of its cells, the messages, and what the stage tracker changed. So what was published is in the
journal, whenever the process is killed; and what the journal has beyond that was not published, or is the same message.

How a session is resumed. The slide map is a pure function of the frames' places, boxes and looks, all kept, and could
be made again by running them through the same code (some ms a frame); `recount` does just that. So that a long session
is resumed in seconds, the slide map and the counts are kept every 1000 frames as they stand, one checkpoint a session,
in the frame's own transaction, and only the frames since then are run through. (Keeping cells as they change was
rejected: most frames change hundreds.) The stage tracker can't be made again that way without a picture of every frame
(80 KB each). Its state is kept instead: keyframes and their links as data, written when they change, one reduced
picture a keyframe, and that of the last frame. This one also shows whether a source is the same slide: on resuming, the
last frame is read once more and compared.

What people say of cells by command is part of the count: it is kept with the frame after which it was said, and applied
again there. Every other command is kept too, refused ones with the reason.

Speed and safety. WAL with synchronous = NORMAL: a commit is a write to the log without waiting for the disk, which
survives the process (kill -9), and the file is never corrupt. A power cut or a crash of the system can cost what the
system had not written yet, at most what came since the log was last moved into the file (8 MB, some 50 frames): the
journal then ends earlier than what was published.

rows: what is kept. schema: tables, opening, faults. writer: a session's way in. reader: its way back. replay: its
frames counted again. run: what a run goes on with.
"""

from streamer.counting.slide_count import Checkpoint, SeenFrame
from streamer.journal.history import JournalHistory
from streamer.journal.reader import JournalReader, StoredSession
from streamer.journal.replay import replay
from streamer.journal.rows import GivenCommand, ModelId, Rules, decision_of, rules_of
from streamer.journal.run import JournaledSource, RunJournal
from streamer.journal.schema import JournalError, fault
from streamer.journal.writer import Emission, Journal, SessionJournal

__all__ = [
    "Checkpoint",
    "Emission",
    "GivenCommand",
    "Journal",
    "JournalError",
    "JournalHistory",
    "JournalReader",
    "JournaledSource",
    "ModelId",
    "Rules",
    "RunJournal",
    "SeenFrame",
    "SessionJournal",
    "StoredSession",
    "decision_of",
    "fault",
    "replay",
    "rules_of",
]

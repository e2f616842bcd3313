"""A terminal of the Fanfare push platform."""

from .endpoints import Refused
from .outbox import NotTaken
from .seen import Seen
from .storage import Folder
from .terminal import Message, Terminal

__all__ = ["Folder", "Message", "NotTaken", "Refused", "Seen", "Terminal"]

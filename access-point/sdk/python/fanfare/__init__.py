"""A terminal of the Fanfare push platform."""

from .endpoints import Refused
from .inlet import Message
from .outbox import NotTaken
from .seen import Seen
from .session import Session
from .storage import Folder
from .terminal import Terminal

__all__ = ["Folder", "Message", "NotTaken", "Refused", "Seen", "Session", "Terminal"]

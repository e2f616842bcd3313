//! What the embedded broker keeps when its process is killed and when its disk lies.

mod kill_nine;

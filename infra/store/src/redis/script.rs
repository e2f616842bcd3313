//! The atomic steps, as scripts that the server runs.
//!
//! Each lies in a file of its own beside this one, which begins by saying what it takes and gives. They replicate by
//! their effects, so they may ask for the time. A script touches keys of one tag only; it is given them as `KEYS`,
//! except those whose name it learns on the way (a message that an inbox names), which carry the tag of `KEYS[1]`.

use std::sync::LazyLock;

use deadpool_redis::redis::{Cmd, Script, ToRedisArgs, cmd};

/// What every script may use.
const PRELUDE: &str = include_str!("lua/prelude.lua");

macro_rules! scripts {
    ($($name:ident $file:literal;)+) => {
        /// A step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Step {
            $($name),+
        }

        static SCRIPTS: LazyLock<Vec<(String, Script)>> = LazyLock::new(|| {
            [$(include_str!(concat!("lua/", $file, ".lua"))),+]
                .into_iter()
                .map(|body| {
                    let source = format!("{PRELUDE}{body}");
                    let script = Script::new(&source);
                    (source, script)
                })
                .collect()
        });
    };
}

scripts! {
    Accept "accept";
    AddReceipts "add_receipts";
    AppendInbox "append_inbox";
    AppendTimeline "append_timeline";
    Beat "beat";
    Bury "bury";
    Cancel "cancel";
    Claim "claim";
    CreateApp "create_app";
    Depart "depart";
    Devices "devices";
    ExpireInboxes "expire_inboxes";
    ExpireTimeline "expire_timeline";
    Fail "fail";
    Forget "forget";
    ForgetOnce "forget_once";
    ForgetUplink "forget_uplink";
    Hold "hold";
    InboxAfter "inbox_after";
    KeepUplinks "keep_uplinks";
    PutGroup "put_group";
    PutKey "put_key";
    Register "register";
    Release "release";
    Remove "remove";
    RemoveGroup "remove_group";
    RemoveKey "remove_key";
    Restore "restore";
    Revoke "revoke";
    SaveCursors "save_cursors";
    Swap "swap";
    SwapLog "swap_log";
    TakeOut "take_out";
    UplinksAfter "uplinks_after";
}

/// The text of every script.
pub(super) fn sources() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(source, _)| source.as_str())
}

/// A call of a script, being written down.
pub(super) struct Call {
    step: Step,
    keys: Vec<Vec<u8>>,
    args: Vec<Vec<u8>>,
}

impl Call {
    pub(super) fn new(step: Step) -> Self {
        Self { step, keys: Vec::new(), args: Vec::new() }
    }

    /// Adds a key it touches.
    pub(super) fn key(&mut self, key: Vec<u8>) -> &mut Self {
        self.keys.push(key);
        self
    }

    /// Adds an argument.
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.args.extend(arg.to_redis_args());
        self
    }

    /// The command.
    pub(super) fn cmd(&self) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(SCRIPTS[self.step as usize].1.get_hash()).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }
}

//! The atomic steps, as scripts that the server runs.
//!
//! Each lies in a file of its own beside this one, which begins by saying what it takes and gives; what several use
//! lies in parts, and each is given only those it needs. They replicate by
//! their effects, so they may ask for the time. A script touches keys of one tag only; it is given them as `KEYS`,
//! except those that follow from them (a message's body) or that it learns of on the way (a message that an inbox names), which
//! carry the tag of `KEYS[1]`.

use std::sync::LazyLock;

use deadpool_redis::redis::{Arg, Cmd, Script, ToRedisArgs, cmd};

macro_rules! scripts {
    ($($name:ident $file:literal $($part:literal)*;)+) => {
        /// A step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Step {
            $($name),+
        }

        static SCRIPTS: LazyLock<Vec<(&str, Script)>> = LazyLock::new(|| {
            let sources = [$(concat!(
                include_str!("lua/prelude.lua"),
                $(include_str!(concat!("lua/part/", $part, ".lua")),)*
                include_str!(concat!("lua/", $file, ".lua")),
            )),+];
            sources.into_iter().map(|source| (source, Script::new(source))).collect()
        });
    };
}

scripts! {
    Accept "accept";
    AcceptOnce "accept_once";
    AddReceipts "add_receipts" "log";
    Amend "amend" "device";
    AppendInbox "append_inbox" "log" "dispatch";
    AppendTimeline "append_timeline" "log" "dispatch";
    Beat "beat";
    Bury "bury";
    Cancel "cancel" "log";
    Claim "claim";
    CreateApp "create_app";
    Depart "depart";
    Devices "devices" "device";
    ExpireInboxes "expire_inboxes" "inbox";
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
    PutRecord "put_record";
    Register "register" "device";
    Release "release";
    Remove "remove" "device";
    RemoveGroup "remove_group";
    RemoveKey "remove_key";
    RemoveRecord "remove_record";
    ReplaceApp "replace_app";
    ReplaceGroup "replace_group";
    Restore "restore";
    Revoke "revoke" "device";
    SaveCursors "save_cursors";
    Swap "swap";
    SwapLog "swap_log";
    TakeOut "take_out" "inbox";
    UplinksAfter "uplinks_after";
}

/// The text of every script.
pub(super) fn sources() -> impl Iterator<Item = &'static str> {
    SCRIPTS.iter().map(|(source, _)| *source)
}

/// A call of a script, being written down.
pub(super) struct Call {
    step: Step,
    keys: Cmd,
    args: Cmd,
}

impl Call {
    pub(super) fn new(step: Step) -> Self {
        Self { step, keys: Cmd::new(), args: Cmd::new() }
    }

    /// Adds a key it touches.
    pub(super) fn key(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.keys.arg(key.as_ref());
        self
    }

    /// Adds an argument.
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        self.args.arg(arg);
        self
    }

    /// Adds the keys and arguments of another call of the same step.
    pub(super) fn join(&mut self, other: &Self) {
        add(&mut self.keys, &other.keys);
        add(&mut self.args, &other.args);
    }

    /// The command.
    pub(super) fn cmd(&self) -> Cmd {
        let mut command = cmd("EVALSHA");
        command.arg(SCRIPTS[self.step as usize].1.get_hash()).arg(self.keys.args_iter().len());
        add(&mut command, &self.keys);
        add(&mut command, &self.args);
        command
    }
}

fn add(to: &mut Cmd, from: &Cmd) {
    for arg in from.args_iter() {
        if let Arg::Simple(bytes) = arg {
            to.arg(bytes);
        }
    }
}

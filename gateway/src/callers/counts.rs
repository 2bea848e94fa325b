//! How much each caller commands: counted where commands enter, for `broadgate top callers`.
//!
//! Only its lock is no pure code. It is held for some nanoseconds for each command of a batch, and never across an
//! await.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use broadgate_proto::{
    limits::{CALLER_SECONDS, CALLERS_MAX},
    name,
    v1::{self, command::Command, send_request::Payload},
};

use crate::{
    callers::{caller::Caller, command_rights::call_and_app},
    refusals::now_ms,
};

/// The row of those for whom there is no other one.
const OTHERS: &str = "others";

/// What the callers of a gateway have commanded.
#[derive(Debug)]
pub(crate) struct CallerCounts {
    began: Instant,
    rows: Mutex<CallerRows>,
}

/// What a batch of sends adds to its caller's row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CommandSums {
    pub(crate) commands: u64,
    pub(crate) sends: u64,
    /// Of the payloads of sends.
    pub(crate) bytes: u64,
    /// Commands that the caller may not give.
    pub(crate) refused: u64,
}

/// By caller, then by app: most callers have one.
#[derive(Debug, Default)]
struct CallerRows {
    rows: HashMap<Box<str>, Vec<(Box<str>, CallerRow)>>,
    /// Pairs of a caller and an app.
    count: usize,
    others: CallerRow,
    /// The second in which silent ones were forgotten last.
    forgotten: u64,
}

/// A caller's commands in one app.
#[derive(Debug, Clone, Default)]
struct CallerRow {
    total: CommandSums,
    last_ms: u64,
    /// By their second, modulo their number: this one, and the complete ones before it.
    seconds: [(u64, CommandSums); CALLER_SECONDS as usize + 1],
}

impl CommandSums {
    fn of(command: &Command) -> Self {
        let Command::Send(request) = command else { return Self { commands: 1, ..Self::default() } };
        let bytes = match &request.payload {
            Some(Payload::Text(text)) => text.len(),
            Some(Payload::Binary(bytes) | Payload::Framed(bytes)) => bytes.len(),
            None => 0,
        };
        Self { commands: 1, sends: 1, bytes: bytes as u64, refused: 0 }
    }

    fn add(&mut self, other: Self) {
        self.commands += other.commands;
        self.sends += other.sends;
        self.bytes += other.bytes;
        self.refused += other.refused;
    }
}

impl CallerRow {
    fn add(&mut self, sums: CommandSums, second: u64, now_ms: u64) {
        self.total.add(sums);
        self.last_ms = now_ms;
        let (known, counted) = &mut self.seconds[(second % (CALLER_SECONDS + 1)) as usize];
        if *known != second {
            (*known, *counted) = (second, CommandSums::default());
        }
        counted.add(sums);
    }

    /// What was counted in the complete seconds before this one.
    fn recent(&self, second: u64) -> CommandSums {
        let mut all = CommandSums::default();
        let is_recent = |known: u64| known < second && known + CALLER_SECONDS >= second;
        self.seconds.iter().filter(|(known, _)| is_recent(*known)).for_each(|(_, sums)| all.add(*sums));
        all
    }

    fn is_silent(&self, second: u64) -> bool {
        self.seconds.iter().all(|(known, _)| known + CALLER_SECONDS < second)
    }
}

impl CallerRows {
    fn add(&mut self, who: &str, app: &str, sums: CommandSums, second: u64, now_ms: u64) {
        self.row(who, app, second).add(sums, second, now_ms);
    }

    /// The row of a caller in an app; that of the others if there are too many.
    fn row(&mut self, who: &str, app: &str, second: u64) -> &mut CallerRow {
        let place = self.rows.get(who).and_then(|apps| apps.iter().position(|(known, _)| **known == *app));
        let place = match place {
            Some(place) => place,
            None => {
                if self.count >= CALLERS_MAX {
                    self.forget(second);
                }
                if self.count >= CALLERS_MAX {
                    return &mut self.others;
                }
                self.count += 1;
                let apps = self.rows.entry(who.into()).or_default();
                apps.push((app.into(), CallerRow::default()));
                apps.len() - 1
            }
        };
        match self.rows.get_mut(who).and_then(|apps| apps.get_mut(place)) {
            Some((_, row)) => row,
            None => &mut self.others,
        }
    }

    /// Forgets those that have been silent. Once a second at most: it looks at all.
    fn forget(&mut self, second: u64) {
        if self.forgotten == second {
            return;
        }
        self.forgotten = second;
        for apps in self.rows.values_mut() {
            apps.retain(|(_, row)| !row.is_silent(second));
        }
        self.rows.retain(|_, apps| !apps.is_empty());
        self.count = self.rows.values().map(Vec::len).sum();
    }

    /// The callers of one app, or of all, added up over these seconds.
    fn callers(&self, app: Option<&str>, second: u64, seconds: u64) -> Vec<v1::TopCaller> {
        let others = (app.is_none() && self.others.last_ms > 0).then_some((OTHERS, &self.others));
        let rows = self.rows.iter().flat_map(|(who, apps)| {
            apps.iter()
                .filter(|(known, _)| app.is_none_or(|app| **known == *app))
                .map(|(_, row)| (&**who, row))
        });
        let mut found: HashMap<&str, v1::TopCaller> = HashMap::new();
        for (who, row) in rows.chain(others) {
            let recent = row.recent(second);
            let rate = |count: u64| if seconds == 0 { 0.0 } else { count as f64 / seconds as f64 };
            let all = found
                .entry(who)
                .or_insert_with(|| v1::TopCaller { caller: who.to_owned(), ..v1::TopCaller::default() });
            all.commands_per_s += rate(recent.commands);
            all.sends_per_s += rate(recent.sends);
            all.bytes_per_s += rate(recent.bytes);
            all.refused_per_s += rate(recent.refused);
            all.commands += row.total.commands;
            all.refused += row.total.refused;
            all.last_at_ms = all.last_at_ms.max(row.last_ms);
        }
        found.into_values().collect()
    }
}

impl CallerCounts {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), rows: Mutex::default() }
    }

    /// Counts from 1: a row that was never counted has none.
    fn second(&self) -> u64 {
        self.began.elapsed().as_secs() + 1
    }

    fn with(&self, counts: impl FnOnce(&mut CallerRows, u64, u64)) {
        let (second, now_ms) = (self.second(), now_ms());
        counts(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner), second, now_ms);
    }

    /// Counts commands that their caller may give.
    pub(crate) fn count<'a>(&self, caller: &Caller, commands: impl Iterator<Item = &'a Command>) {
        let who = caller.who();
        self.with(|rows, second, now_ms| {
            // The commands of a batch mostly concern one app: its row is looked for once.
            let mut all = commands.map(|command| (app_of(command), CommandSums::of(command)));
            let Some((mut app, mut sums)) = all.next() else { return };
            for (next, more) in all {
                if next != app {
                    rows.add(&who, app, std::mem::take(&mut sums), second, now_ms);
                    app = next;
                }
                sums.add(more);
            }
            rows.add(&who, app, sums, second, now_ms);
        });
    }

    /// Counts a command that its caller may not give.
    pub(crate) fn count_refused(&self, caller: &Caller, command: &Command) {
        let sums = CommandSums { refused: 1, ..CommandSums::default() };
        let who = caller.who();
        self.with(|rows, second, now_ms| rows.add(&who, app_of(command), sums, second, now_ms));
    }

    /// Counts messages that came by another way, such as an app's Redis.
    pub(crate) fn count_sends(&self, who: &str, app: &str, sends: u64, bytes: u64) {
        let sums = CommandSums { commands: sends, sends, bytes, refused: 0 };
        self.with(|rows, second, now_ms| rows.add(who, app, sums, second, now_ms));
    }

    /// The callers of one app, or of all; also over how many milliseconds their rates were measured.
    pub(crate) fn top(&self, app: Option<&str>) -> (Vec<v1::TopCaller>, u32) {
        let second = self.second();
        let seconds = (second - 1).min(CALLER_SECONDS);
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        (rows.callers(app, second, seconds), u32::try_from(seconds * 1000).unwrap_or(u32::MAX))
    }
}

/// The app that a command names; "" if it is about all, or names none that can be.
fn app_of(command: &Command) -> &str {
    call_and_app(command).1.map_or("", |app| name::app(app).unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(commands: u64, bytes: u64) -> CommandSums {
        CommandSums { commands, sends: commands, bytes, refused: 0 }
    }

    fn row<'a>(all: &'a [v1::TopCaller], who: &str) -> &'a v1::TopCaller {
        all.iter().find(|row| row.caller == who).unwrap()
    }

    #[test]
    fn rates_are_of_the_last_complete_seconds() {
        let mut rows = CallerRows::default();
        rows.add("secret", "shop", sums(50, 500), 1, 1_000);
        rows.add("secret", "shop", sums(10, 100), 5, 5_000);
        rows.add("secret", "other", sums(10, 100), 6, 6_000);
        rows.add("secret", "shop", sums(1000, 0), 12, 12_000);
        let all = rows.callers(None, 12, 10);
        let one = row(&all, "secret");
        assert_eq!(
            (one.commands_per_s, one.bytes_per_s),
            (2.0, 20.0),
            "the first one is too old, this one lasts"
        );
        assert_eq!((one.commands, one.last_at_ms), (1070, 12_000));
        assert_eq!(row(&rows.callers(Some("other"), 12, 10), "secret").commands, 10);
        assert!(rows.callers(Some("nothing"), 12, 10).is_empty());
        assert_eq!(row(&rows.callers(None, 99, 10), "secret").commands_per_s, 0.0);
        assert_eq!(row(&rows.callers(None, 1, 0), "secret").commands_per_s, 0.0, "nothing is measured yet");
    }

    #[test]
    fn commands_of_a_batch_count_for_their_apps() {
        use crate::callers::CallerKind;
        let caller = Caller {
            kind: CallerKind::Local,
            worker: None,
            how: "grpc",
            note: None,
            traceparent: None,
            from: None,
        };
        let send = |app: &str, text: &str| {
            let to = Some(v1::Audience { app: app.to_owned(), all: true, ..v1::Audience::default() });
            let payload = Some(Payload::Text(text.to_owned()));
            Command::Send(v1::SendRequest { to, payload, ..v1::SendRequest::default() })
        };
        let counts = CallerCounts::new();
        counts.count(&caller, std::iter::empty());
        let batch = [send("shop", "1"), send("shop", "22"), send("blog", "333"), send("shop", "4444")];
        counts.count(&caller, batch.iter());
        for (app, commands, bytes) in [("shop", 3, 7), ("blog", 1, 3)] {
            let rows = counts.rows.lock().unwrap();
            let row = &rows.rows["local"].iter().find(|(known, _)| **known == *app).unwrap().1;
            assert_eq!((row.total.commands, row.total.sends, row.total.bytes), (commands, commands, bytes));
        }
    }

    #[test]
    fn so_many_callers_are_remembered_and_the_silent_ones_go_first() {
        let mut rows = CallerRows::default();
        for number in 0..CALLERS_MAX {
            rows.add(&format!("worker:{number}"), "shop", sums(1, 0), 1, 1);
        }
        rows.add("token:late", "shop", sums(3, 0), 2, 2);
        assert_eq!((rows.count, row(&rows.callers(None, 3, 1), OTHERS).commands), (CALLERS_MAX, 3));
        assert!(
            !rows.callers(Some("shop"), 3, 1).iter().any(|row| row.caller == OTHERS),
            "of which app is unknown"
        );
        rows.add("worker:7", "shop", sums(1, 0), 12, 12);
        rows.add("token:late", "shop", sums(3, 0), 12, 12);
        assert_eq!((rows.count, rows.rows.len()), (2, 2), "the others have been silent for 10 s");
        assert_eq!(row(&rows.callers(None, 13, 10), "token:late").commands, 3);
        for number in 0..3 * CALLERS_MAX {
            rows.add("token:many", &format!("app-{number}"), sums(1, 0), 12, 12);
        }
        assert_eq!(rows.count, CALLERS_MAX);
    }
}

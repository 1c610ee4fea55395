//! What can go wrong with a request, and the rules that say which request it goes wrong with.
//!
//! ```ignore
//! server.faults().on(Op::Part).part(1).nth(1).meets(Fault::ReplyLost);
//! server.faults().on(Op::Put).key("manifest.json").meets(Fault::Denied);
//! ```

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::{Asked, Op};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// 403 AccessDenied, and nothing is done.
    Denied,
    /// 503 SlowDown, and nothing is done.
    SlowDown,
    /// 503 SlowDown, and nothing is done, while more than so many requests are being worked on.
    SlowDownAbove { at_once: usize },
    /// 500 InternalError, and nothing is done.
    InternalError,
    /// It is done, and the answer is 500 InternalError all the same.
    DoneInternalError,
    /// It is done, and the connection closed without an answer.
    ReplyLost,
    /// The connection is closed when the request's head is there.
    CutBefore,
    /// The connection is closed when half of the request's body is there.
    CutInBody,
    /// The connection is closed when all of the request is there, and nothing is done.
    CutAfterBody,
    /// Nothing is done and nothing answered; the connection stays open.
    Stalled,
    /// It is done and never answered; the connection stays open.
    DoneStalled,
    /// The request's body is read this slowly.
    SlowBody { bytes_per_second: u32 },
    /// It is done, and answered so much later.
    SlowReply { after: Duration },
    /// It is done, and the answer's body comes in a hundred pieces, so far apart.
    TrickledReply { gap: Duration },
    /// Nothing is done for so long, then it is, also when whoever asked is gone by then.
    Late { by: Duration },
    /// 200 with an error for a body, and nothing is done.
    ErrorIn200,
    /// It is done, and the answer is 200 with an error for a body.
    DoneErrorIn200,
    /// The answer is what it would be, and nothing is done.
    WithoutEffect,
    /// The answer is 200 with nothing in it, and nothing is done.
    EmptyWithoutEffect,
    /// 200 with a web page for a body, and nothing is done: a captive portal.
    Garbage,
    /// It is done, and the answer is 200 with a web page for a body.
    DoneGarbage,
    /// It is done, and the answer says no ETag.
    NoEtag,
    /// It is done, and the connection closed after so many bytes of the answer's body.
    CutReply { after: u64 },
    /// Half of the answer's body, said to be all of it.
    ShortReply,
    /// The answer's body with one bit changed.
    WrongReply,
    /// A GET's whole object, whatever range was asked for.
    RangeIgnored,
}

/// Which requests meet a fault: those that fit, from the `from`th on, `times` of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Only requests of this operation.
    #[serde(default)]
    op: Option<Op>,
    /// Only requests whose key holds this.
    #[serde(default)]
    key: String,
    /// Only parts with these numbers: first, last.
    #[serde(default)]
    parts: Option<(u32, u32)>,
    #[serde(default = "one")]
    from: usize,
    /// `None` is for ever.
    #[serde(default)]
    times: Option<usize>,
    fault: Fault,
    /// Requests that fitted so far.
    #[serde(skip)]
    fitted: usize,
}

fn one() -> usize {
    1
}

impl Rule {
    fn fits(&self, asked: &Asked) -> bool {
        let in_parts = |(first, last)| {
            asked
                .part
                .is_some_and(|part| (first..=last).contains(&part))
        };
        self.op.is_none_or(|op| op == asked.op)
            && asked.key.contains(&self.key)
            && self.parts.is_none_or(in_parts)
    }

    /// Counts the request, and tells whether it is one that meets the fault.
    fn meets(&mut self, asked: &Asked) -> bool {
        if !self.fits(asked) {
            return false;
        }
        self.fitted += 1;
        let nth = self.fitted;
        nth >= self.from && self.times.is_none_or(|times| nth - self.from < times)
    }
}

/// The rules of a server. When several mean a request, the one that was added first has it; every
/// rule counts from when it was added.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
}

impl Faults {
    /// Begins a rule about every `op` from now on; [`RuleToBe::meets`] ends it.
    pub fn on(&self, op: Op) -> RuleToBe<'_> {
        self.rule(Some(op))
    }

    /// Begins a rule about every request from now on.
    pub fn on_any(&self) -> RuleToBe<'_> {
        self.rule(None)
    }

    fn rule(&self, op: Option<Op>) -> RuleToBe<'_> {
        let rule = Rule {
            op,
            key: String::new(),
            parts: None,
            from: 1,
            times: None,
            fault: Fault::SlowDown,
            fitted: 0,
        };
        RuleToBe { faults: self, rule }
    }

    /// From now on nothing goes wrong.
    pub fn clear(&self) {
        self.rules().clear();
    }

    pub(super) fn add(&self, rule: Rule) {
        self.rules().push(rule);
    }

    /// The fault that this request meets.
    pub(super) fn meet(&self, asked: &Asked) -> Option<Fault> {
        let mut met = None;
        for rule in &mut *self.rules() {
            if rule.meets(asked) && met.is_none() {
                met = Some(rule.fault);
            }
        }
        met
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().expect("no holder panics")
    }
}

/// A rule being said.
#[must_use = "a rule says what its requests meet"]
pub struct RuleToBe<'a> {
    faults: &'a Faults,
    rule: Rule,
}

impl RuleToBe<'_> {
    /// Only requests whose key holds `text`.
    pub fn key(mut self, text: &str) -> Self {
        text.clone_into(&mut self.rule.key);
        self
    }

    /// Only the part with this number.
    pub fn part(mut self, number: u32) -> Self {
        self.rule.parts = Some((number, number));
        self
    }

    /// Only parts with this number or a higher one.
    pub fn parts_from(mut self, number: u32) -> Self {
        self.rule.parts = Some((number, u32::MAX));
        self
    }

    /// Only the `nth` such request, counted from 1.
    pub fn nth(self, nth: usize) -> Self {
        self.from(nth).times(1)
    }

    /// Only the `nth` such request and those that follow.
    pub fn from(mut self, nth: usize) -> Self {
        self.rule.from = nth;
        self
    }

    /// Only so many of them.
    pub fn times(mut self, times: usize) -> Self {
        self.rule.times = Some(times);
        self
    }

    /// What they meet. The rule holds from now on.
    pub fn meets(mut self, fault: Fault) {
        self.rule.fault = fault;
        self.faults.add(self.rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u32) -> Asked {
        Asked {
            op: Op::Part,
            key: "x/archive".into(),
            part: Some(number),
        }
    }

    #[test]
    fn a_rule_means_the_requests_that_it_says_and_no_others() {
        let faults = Faults::default();
        faults.on(Op::Part).part(1).nth(2).meets(Fault::ReplyLost);
        faults
            .on(Op::Part)
            .parts_from(3)
            .times(2)
            .meets(Fault::Denied);
        faults.on(Op::Part).key("nothing").meets(Fault::Garbage);
        let met = [1, 1, 1, 2, 3, 4, 5].map(|number| faults.meet(&part(number)));
        let [lost, denied] = [Some(Fault::ReplyLost), Some(Fault::Denied)];
        assert_eq!(met, [None, lost, None, None, denied, denied, None]);
        faults.on(Op::Part).key("archive").meets(Fault::Stalled);
        assert_eq!(faults.meet(&part(9)), Some(Fault::Stalled));
        assert_eq!(
            faults.meet(&Asked {
                op: Op::Put,
                ..part(9)
            }),
            None
        );
        faults.clear();
        assert_eq!(faults.meet(&part(9)), None);
    }

    #[test]
    fn a_rule_can_be_sent_to_a_server_in_another_process() {
        let text = r#"{"op": "part", "parts": [1, 1], "times": 1, "fault": "reply_lost"}"#;
        let faults = Faults::default();
        faults.add(serde_json::from_str(text).unwrap());
        assert_eq!(faults.meet(&part(2)), None);
        assert_eq!(faults.meet(&part(1)), Some(Fault::ReplyLost));
        assert_eq!(faults.meet(&part(1)), None);
    }
}

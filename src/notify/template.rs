//! How a webhook wants to be told: a file of data, filled in with what happened.
//!
//! ```json
//! { "headers": { "Title": "{{title:200}}" },
//!   "json": { "message": "{{report:1900}}", "priority": { "$event": { "failure": 8, "*": 3 } } } }
//! ```
//!
//! Beside `headers` there is `json`, which is posted as it is, or `text`. In each of its texts
//! `{{NAME:LETTERS:ESCAPE}}` stands for a piece of the notice ([`PIECES`]), of a `report` its end, of
//! the others the beginning; what it says goes into a text that is JSON already, so that nothing
//! in it can end that text. An object whose only key is `$event` stands for one of its values.

use serde_json::{Map, Value};

use super::{Event, Notice};

/// What there is to be filled in.
const PIECES: [&str; 5] = ["title", "report", "text", "host", "event"];
/// Templates that come with the program, by name.
const OWN: [(&str, &str); 5] = [
    ("slack", include_str!("templates/slack.json")),
    ("teams", include_str!("templates/teams.json")),
    ("discord", include_str!("templates/discord.json")),
    ("ntfy", include_str!("templates/ntfy.json")),
    ("gotify", include_str!("templates/gotify.json")),
];

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    headers: Map<String, Value>,
    body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Body {
    Json(Value),
    Text(String),
}

/// A notice that has been put into a template.
#[derive(Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its headers, besides the inventory's.
    pub headers: Vec<(String, String)>,
    /// Of the body.
    pub content_type: &'static str,
    /// What is posted.
    pub body: Vec<u8>,
}

impl Template {
    /// One that comes with the program.
    pub fn named(name: &str) -> Option<Self> {
        let (_, text) = OWN.iter().find(|(known, _)| *known == name)?;
        Self::parse(text).ok()
    }

    /// The names of these.
    pub fn names() -> String {
        OWN.map(|(name, _)| name).join(", ")
    }

    /// A template from its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Ok(Value::Object(mut table)) = serde_json::from_str(text) else {
            return Err("is no JSON object".into());
        };
        let headers = match table.remove("headers") {
            None => Map::new(),
            Some(Value::Object(headers)) => headers,
            Some(_) => return Err("headers are no object".into()),
        };
        let body = match (table.remove("json"), table.remove("text")) {
            (Some(json), None) => Body::Json(json),
            (None, Some(Value::String(text))) => Body::Text(text),
            _ => return Err("has either json or text, which is a string".into()),
        };
        if let Some(key) = table.keys().next() {
            return Err(format!(
                "has a key {key:?}; there are headers, json and text"
            ));
        }
        let template = Self { headers, body };
        // What cannot be filled in is found before it is needed.
        template.fill(&Notice::new(Event::Test, String::new(), ""))?;
        Ok(template)
    }

    /// Puts a notice into it.
    ///
    /// # Errors
    /// When it asks for what there is not.
    pub fn fill(&self, notice: &Notice) -> Result<Filled, String> {
        let mut headers = Vec::new();
        for (name, value) in &self.headers {
            let Value::String(text) = filled(value, notice)? else {
                return Err(format!("the header {name} is no text"));
            };
            headers.push((name.clone(), header(&text)));
        }
        let (content_type, body) = match &self.body {
            Body::Json(value) => ("application/json", filled(value, notice)?.to_string()),
            Body::Text(text) => ("text/plain; charset=utf-8", substitute(text, notice)?),
        };
        let body = body.into_bytes();
        Ok(Filled {
            headers,
            content_type,
            body,
        })
    }
}

fn filled(value: &Value, notice: &Notice) -> Result<Value, String> {
    Ok(match value {
        Value::String(text) => Value::String(substitute(text, notice)?),
        Value::Array(values) => {
            let values = values.iter().map(|value| filled(value, notice));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Value::Object(table) => {
            if let (1, Some(Value::Object(by_event))) = (table.len(), table.get("$event")) {
                let own = by_event.get(notice.event.name());
                let chosen = own.or_else(|| by_event.get("*"));
                filled(chosen.unwrap_or(&Value::Null), notice)?
            } else {
                let pairs = table
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), filled(value, notice)?)));
                Value::Object(pairs.collect::<Result<_, String>>()?)
            }
        }
        other => other.clone(),
    })
}

/// Fills in a text; what is filled in is not looked at again.
fn substitute(text: &str, notice: &Notice) -> Result<String, String> {
    let (mut done, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("{{") {
        let (inside, after) = after.split_once("}}").ok_or("a {{ has no }}")?;
        done += before;
        done += &piece(inside, notice)?;
        rest = after;
    }
    Ok(done + rest)
}

fn piece(inside: &str, notice: &Notice) -> Result<String, String> {
    let mut parts = inside.split(':');
    let name = parts.next().unwrap_or_default().trim();
    let said = match name {
        "title" => &notice.title,
        "report" => &notice.report,
        "text" => &notice.text,
        "host" => &notice.host,
        "event" => notice.event.name(),
        _ => return Err(format!("there is {}, and no {name:?}", PIECES.join(", "))),
    };
    let limit = match parts.next() {
        None => usize::MAX,
        Some(number) => number
            .parse()
            .map_err(|_| format!("{inside:?}: after the first : is a number of letters"))?,
    };
    let escaped: fn(char) -> String = match parts.next() {
        None => |letter| letter.to_string(),
        Some("entities") => |letter| match letter {
            '&' => "&amp;".into(),
            '<' => "&lt;".into(),
            '>' => "&gt;".into(),
            letter => letter.to_string(),
        },
        Some("markdown") => |letter| match letter {
            '\\' | '*' | '_' | '~' | '`' | '|' | '[' | ']' | '<' | '>' | '#' | '@' => {
                format!("\\{letter}")
            }
            letter => letter.to_string(),
        },
        Some(_) => return Err(format!("{inside:?}: it is escaped as entities or markdown")),
    };
    // An empty text is one that chats refuse.
    let said = if said.is_empty() { "-" } else { said };
    let letters: Vec<char> = said.chars().collect();
    let kept = match letters.len().checked_sub(limit) {
        None | Some(0) => &letters[..],
        Some(over) if name == "report" => &letters[over..],
        Some(_) => &letters[..limit],
    };
    Ok(kept.iter().copied().map(escaped).collect())
}

/// A header's value is printable ASCII; other letters go by RFC 2047.
fn header(text: &str) -> String {
    use base64::Engine;
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return text.to_owned();
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    format!("=?UTF-8?B?{encoded}?=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(event: Event, title: &str, report: &str) -> Notice {
        let mut notice = Notice::new(event, "db1".into(), "");
        notice.title = title.into();
        notice.report = report.into();
        notice
    }

    fn json(name: &str, notice: &Notice) -> Value {
        let filled = Template::named(name).unwrap().fill(notice).unwrap();
        assert_eq!(filled.content_type, "application/json");
        serde_json::from_slice(&filled.body).unwrap()
    }

    #[test]
    fn each_template_of_ones_own_takes_any_notice_and_stays_within_its_service() {
        let hostile = "\"}, {{title}} <!channel> @everyone \\ \u{7}\n ü".repeat(2000);
        for event in [Event::Failure, Event::Recovery, Event::Success, Event::Test] {
            for (title, report) in [("t", ""), (hostile.as_str(), hostile.as_str())] {
                let notice = notice(event, title, report);
                let slack = json("slack", &notice);
                let at = |path: &str| slack.pointer(path).unwrap().as_str().unwrap();
                assert!(!at("/text").contains('<') && !at("/text").is_empty());
                assert!(at("/blocks/0/text/text").chars().count() <= 150);
                assert!(at("/blocks/1/text/text").chars().count() <= 3000);
                let discord = json("discord", &notice);
                let said = discord["embeds"][0]["description"].as_str().unwrap();
                assert!(said.chars().count() <= 4096 && !said.contains(" @"));
                assert!(discord["embeds"][0]["color"].is_u64());
                let teams = json("teams", &notice).to_string();
                assert!(teams.len() < 28 << 10, "{}", teams.len());
                let priority = if event == Event::Failure { 8 } else { 3 };
                assert_eq!(json("gotify", &notice)["priority"], priority);
                let ntfy = Template::named("ntfy").unwrap().fill(&notice).unwrap();
                assert!(ntfy.body.len() <= 4096);
                for (name, value) in ntfy.headers {
                    assert!(value.bytes().all(|b| (32..127).contains(&b)), "{name}");
                }
            }
        }
    }

    #[test]
    fn of_a_report_the_end_is_kept_and_what_is_filled_in_is_not_filled_in_again() {
        let notice = notice(Event::Success, "{{report}}", "begin … end");
        assert_eq!(
            substitute("{{report:3}}|{{title}}", &notice).unwrap(),
            "end|{{report}}"
        );
        assert_eq!(header("größe"), "=?UTF-8?B?Z3LDtsOfZQ==?=");
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused_when_it_is_read() {
        for (text, why) in [
            ("[]", "no JSON object"),
            ("{}", "either json or text"),
            (r#"{"json": 1, "text": "x"}"#, "either json or text"),
            (r#"{"text": "{{titel}}"}"#, "no \"titel\""),
            (r#"{"text": "{{title"}"#, "no }}"),
            (r#"{"text": "{{title:x}}"}"#, "a number of letters"),
            (r#"{"text": "{{title:3:html}}"}"#, "entities or markdown"),
            (r#"{"text": "x", "url": "x"}"#, "has a key \"url\""),
            (r#"{"text": "x", "headers": {"A": 1}}"#, "is no text"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

//! What stands behind the rows of a dump, taken apart for several sessions.
//!
//! ```text
//! step 1  index │ index │ primary key │ …     as many at once as there are sessions
//! step 2  comments on them, indexes attached   one after the other
//! step 3  foreign key │ foreign key │ …        at once, where they are of other tables
//! step 4  triggers, rules, policies, …         one after the other
//! ```
//!
//! Steps keep the dump's order, which `pg_dump` has made from what depends on what; only what
//! depends on nothing in its own step is done side by side. What is not known stays in its place. A
//! statement is known by its own words: a header in a comment could stand in a function's text, too.

use std::ops::Range;

use super::super::script::{Dialect, Token, statements, tokens};

/// As many words of a statement as are looked at: a foreign key names its columns before its table.
const LOOK: usize = 400;

/// A script that one session loads at one go.
#[derive(Debug, PartialEq, Eq)]
pub struct Task {
    /// The script.
    pub text: Vec<u8>,
    locks: Vec<Lock>,
}

/// A table that a task locks against changes, or against everybody.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    table: String,
    alone: bool,
}

impl Task {
    fn alone(text: Vec<u8>) -> Self {
        Self {
            text,
            locks: Vec::new(),
        }
    }

    /// Some tasks, one after the other.
    pub fn joined(tasks: impl IntoIterator<Item = Self>) -> Self {
        let mut joined = Self::alone(Vec::new());
        for Self { text, locks } in tasks {
            joined.text.extend(text);
            joined.locks.extend(locks);
        }
        joined
    }

    /// Whether one of the two would wait for the other, or both for each other.
    pub fn is_in_the_way_of(&self, other: &Self) -> bool {
        let pairs = |mine: &Lock| other.locks.iter().any(|theirs| mine.hinders(theirs));
        self.locks.iter().any(pairs)
    }
}

impl Lock {
    fn hinders(&self, other: &Self) -> bool {
        self.table == other.table && (self.alone || other.alone)
    }
}

/// What a statement is about.
enum About {
    /// Settings, which hold for what follows.
    Session,
    /// The end of what a newer dump tool has begun with `\restrict`.
    End,
    /// An index, or a key: what it locks.
    Index(Lock),
    /// What follows an index, in any order.
    OfIndex,
    /// A foreign key: what it locks.
    Foreign([Lock; 2]),
    Other,
}

/// The steps in which a script is loaded: each is begun when all of the one before has ended.
pub fn steps(script: &[u8]) -> Vec<Vec<Task>> {
    let mut ranges = statements(Dialect::Postgres, script);
    let words = |range: &Range<usize>| tokens(Dialect::Postgres, &script[range.clone()], LOOK);
    // A comment at the end.
    ranges.retain(|range| !words(range).is_empty());
    // Keys that reach into partitions lock more tables than they name.
    let partitioned = ranges.iter().any(|range| attaches(&words(range)));
    let mut plan = Plan::default();
    for range in ranges {
        let statement = &script[range.clone()];
        match about(&words(&range)) {
            About::Session => plan.set(statement, &words(&range)),
            About::End => {}
            About::Index(lock) => plan.add(Stage::Indexes, statement, vec![lock]),
            About::OfIndex if plan.stage == Stage::Indexes => plan.late.extend(statement),
            About::Foreign(locks) if !partitioned => {
                plan.add(Stage::Foreign, statement, locks.into());
            }
            About::OfIndex | About::Foreign(_) | About::Other => plan.append(statement),
        }
    }
    plan.close();
    plan.steps
}

/// What is in the step that is being made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    InOrder,
    Indexes,
    Foreign,
}

#[derive(Default)]
struct Plan {
    steps: Vec<Vec<Task>>,
    stage: Stage,
    tasks: Vec<Task>,
    /// Statements that are to be carried out one after the other.
    in_order: Vec<u8>,
    /// The same behind the tasks of this step.
    late: Vec<u8>,
    /// The settings that hold, by what they set.
    settings: Vec<(String, Vec<u8>)>,
    /// What ends a script that has `\restrict` among its settings.
    tail: Vec<u8>,
}

impl Plan {
    fn set(&mut self, statement: &[u8], words: &[Token]) {
        let name = |words: &[Token]| words.iter().map(Token::lossy).collect::<Vec<_>>().join(" ");
        let is_command = words[0].is("\\");
        let what = match words {
            [select, ..] if select.is("select") => name(words),
            _ => name(&words[..words.len().min(2)]),
        };
        if is_command {
            let key = name(&words[2..]);
            self.tail = format!("\n\\unrestrict {key}\n").into_bytes();
        } else if !self.in_order.is_empty() {
            self.in_order.extend(statement);
        }
        self.settings.retain(|(known, _)| *known != what);
        self.settings.push((what, statement.to_vec()));
    }

    /// A statement of its own script, in a step with others of its kind.
    fn add(&mut self, stage: Stage, statement: &[u8], locks: Vec<Lock>) {
        self.next(stage);
        let text = self.script(statement);
        self.tasks.push(Task { text, locks });
    }

    /// A statement behind all before it.
    fn append(&mut self, statement: &[u8]) {
        self.next(Stage::InOrder);
        if self.in_order.is_empty() {
            self.in_order = self
                .settings
                .iter()
                .flat_map(|(_, text)| text)
                .copied()
                .collect();
        }
        self.in_order.extend(statement);
    }

    fn script(&self, statements: &[u8]) -> Vec<u8> {
        let settings = self.settings.iter().flat_map(|(_, text)| text);
        settings
            .chain(statements)
            .chain(&self.tail)
            .copied()
            .collect()
    }

    /// Goes on with a step of this kind.
    fn next(&mut self, stage: Stage) {
        if self.stage != stage {
            self.close();
            self.stage = stage;
        }
    }

    fn close(&mut self) {
        if !self.tasks.is_empty() {
            self.steps.push(std::mem::take(&mut self.tasks));
        }
        let late = std::mem::take(&mut self.late);
        if !late.is_empty() {
            self.steps.push(vec![Task::alone(self.script(&late))]);
        }
        let mut in_order = std::mem::take(&mut self.in_order);
        if !in_order.is_empty() {
            in_order.extend(&self.tail);
            self.steps.push(vec![Task::alone(in_order)]);
        }
    }
}

fn about(words: &[Token]) -> About {
    let starts = |front: &[&str]| {
        front.len() <= words.len() && front.iter().zip(words).all(|(text, word)| word.is(text))
    };
    if starts(&["\\", "restrict"]) || starts(&["set"]) {
        return About::Session;
    }
    if starts(&["\\", "unrestrict"]) {
        return About::End;
    }
    if starts(&["select", "pg_catalog", ".", "set_config"]) {
        return About::Session;
    }
    if starts(&["comment", "on", "index"])
        || starts(&["comment", "on", "constraint"])
        || starts(&["alter", "index"])
        || of_index(words)
    {
        return About::OfIndex;
    }
    if starts(&["create", "index"]) || starts(&["create", "unique", "index"]) {
        let on = words.iter().position(|word| word.is("on"));
        return on
            .and_then(|on| table(&words[on + 1..]))
            .map_or(About::Other, |table| {
                About::Index(Lock {
                    table,
                    alone: false,
                })
            });
    }
    key(words).unwrap_or(About::Other)
}

/// `ALTER TABLE … CLUSTER ON i;`, `ALTER TABLE … REPLICA IDENTITY USING INDEX i;`
fn of_index(words: &[Token]) -> bool {
    let behind = |word: &str, next: &str| {
        let mut pairs = words.windows(2);
        pairs.any(|pair| pair[0].is(word) && pair[1].is(next))
    };
    let adds = words.iter().any(|word| word.is("add"));
    let alters = words.len() < 14 && words[0].is("alter") && !adds;
    alters && (behind("cluster", "on") || behind("replica", "identity"))
}

/// `ALTER TABLE ONLY t ADD CONSTRAINT c …`: without ONLY it is of a table that has partitions.
fn key(words: &[Token]) -> Option<About> {
    let front = ["alter", "table", "only"];
    let is_one = words.len() > 3 && front.iter().zip(words).all(|(text, word)| word.is(text));
    let add = words
        .iter()
        .position(|word| word.is("add"))
        .filter(|_| is_one)?;
    let table_of = |words: &[Token]| table(words).map(|table| Lock { table, alone: true });
    let of = table_of(&words[3..])?;
    if !words.get(add + 1)?.is("constraint") {
        return None;
    }
    let kind = words.get(add + 3)?;
    if kind.is("primary") || kind.is("unique") || kind.is("exclude") {
        return Some(About::Index(of));
    }
    let references = words.iter().position(|word| word.is("references"))?;
    let to = table_of(&words[references + 1..])?;
    kind.is("foreign").then_some(About::Foreign([of, to]))
}

fn attaches(words: &[Token]) -> bool {
    let mut pairs = words.windows(2);
    words[0].is("alter") && pairs.any(|pair| pair[0].is("attach") && pair[1].is("partition"))
}

/// The name that stands here, behind ONLY.
fn table(words: &[Token]) -> Option<String> {
    let words = match words {
        [only, rest @ ..] if only.is("only") => rest,
        words => words,
    };
    match words {
        [schema, dot, name, ..] if schema.names() && dot.is(".") && name.names() => {
            Some(format!("{}.{}", schema.lossy(), name.lossy()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\\restrict k3y\nSET statement_timeout = 0;\n\
        SELECT pg_catalog.set_config('search_path', '', false);\nSET default_tablespace = '';\n";

    /// The statements of each task of each step, without what is around them.
    fn planned(script: &str) -> Vec<Vec<String>> {
        let text = format!("{HEAD}{script}\\unrestrict k3y\n\n-- the end\n");
        let steps = steps(text.as_bytes());
        let without = |task: &Task| {
            let text = String::from_utf8(task.text.clone()).unwrap();
            let text = text.strip_prefix(HEAD).unwrap_or_else(|| panic!("{text}"));
            let text = text.strip_suffix("\n\\unrestrict k3y\n").expect(text);
            text.trim().to_owned()
        };
        let of_step = |step: &Vec<Task>| step.iter().map(without).collect();
        steps.iter().map(of_step).collect()
    }

    #[test]
    fn what_depends_on_nothing_is_side_by_side_and_the_rest_keeps_its_order() {
        let pk = "ALTER TABLE ONLY public.a\n    ADD CONSTRAINT a_pkey PRIMARY KEY (id);";
        let index = "CREATE UNIQUE INDEX i ON public.\"a; -- b\" USING btree (x) WHERE (y = ';');";
        let comment = "COMMENT ON INDEX public.i IS 'CREATE INDEX x ON public.a (id);';";
        let late = "CREATE INDEX j ON public.a USING gin (z);";
        let foreign = "ALTER TABLE ONLY public.b\n    ADD CONSTRAINT f FOREIGN KEY (a, b) \
                       REFERENCES public.a(id, x) ON DELETE CASCADE;";
        let trigger =
            "CREATE TRIGGER t AFTER INSERT ON public.a FOR EACH ROW EXECUTE FUNCTION public.f();";
        let function = "CREATE FUNCTION public.f() RETURNS void LANGUAGE sql AS $$\n--\n\
                        -- Name: x; Type: INDEX; Schema: public; Owner: o\n--\ncreate index; $$;";
        let script = [pk, index, comment, late, trigger, function, foreign].join("\n\n\n") + "\n\n";
        let expected = [
            vec![pk.to_owned(), index.into(), late.into()],
            vec![comment.into()],
            vec![format!("{trigger}\n\n\n{function}")],
            vec![foreign.into()],
        ];
        assert_eq!(planned(&script), expected);
    }

    #[test]
    fn tasks_that_would_wait_for_each_other_are_in_each_others_way() {
        let index = |table: &str| format!("CREATE INDEX i ON {table} USING btree (x);\n");
        let pk = |table: &str| format!("ALTER TABLE ONLY {table} ADD CONSTRAINT c UNIQUE (x);\n");
        let foreign = |from: &str, to: &str| {
            format!(
                "ALTER TABLE ONLY {from} ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES {to}(x);\n"
            )
        };
        let collide = |one: &str, other: &str| {
            let steps = steps(format!("{HEAD}{one}{other}").as_bytes());
            let [tasks] = steps.as_slice() else {
                panic!("{one} {other}")
            };
            tasks[0].is_in_the_way_of(&tasks[1]) && tasks[1].is_in_the_way_of(&tasks[0])
        };
        assert!(!collide(&index("s.a"), &index("s.a")));
        assert!(collide(&index("s.a"), &pk("s.a")) && collide(&pk("s.a"), &pk("s.a")));
        assert!(!collide(&index("s.a"), &pk("s.b")) && !collide(&pk("s.a"), &pk("t.a")));
        assert!(collide(&foreign("s.a", "s.b"), &foreign("s.b", "s.a")));
        assert!(collide(&foreign("s.a", "s.b"), &foreign("s.c", "s.b")));
        assert!(!collide(&foreign("s.a", "s.b"), &foreign("s.c", "s.d")));
        // Where there are partitions, keys are made one after the other.
        let attach = "ALTER INDEX s.i ATTACH PARTITION s.j;\n";
        let script = [attach, &foreign("s.a", "s.b"), &foreign("s.c", "s.d")].concat();
        assert_eq!(planned(&script).concat().len(), 1);
    }

    #[test]
    fn a_setting_holds_for_what_follows_it() {
        let index = "CREATE INDEX i ON public.a USING btree (x);";
        let text = format!("{HEAD}{index}\nSET default_tablespace = fast;\n{index}\n");
        let steps = steps(text.as_bytes());
        let texts: Vec<String> = steps[0]
            .iter()
            .map(|task| String::from_utf8(task.text.clone()).unwrap())
            .collect();
        assert!(texts[0].contains("tablespace = ''") && !texts[0].contains("fast"));
        assert!(texts[1].contains("tablespace = fast") && !texts[1].contains("= ''"));
    }
}

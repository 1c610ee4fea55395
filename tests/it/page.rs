//! What is served over HTTP: as it is described, to whom it may be, and what can be pressed there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::serve::{end, get, listening, log, manifests, slow};
use super::world::{World, wait_until};

const HERE: &str = "host: localhost\r\n";
/// Due on the first of January alone.
const YEARLY: &str = "schedule = \"0 0 1 1 *\"\ntime_zone = \"UTC\"\n";

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn json(address: &str, path: &str) -> Value {
    let answer = get(address, path, HERE);
    assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    serde_json::from_str(body(&answer)).unwrap()
}

/// A form from a page; the answer's head.
fn press(address: &str, headers: &str, form: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let length = form.len();
    let request = format!(
        "POST /api/v1/actions HTTP/1.1\r\nconnection: close\r\n{headers}\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
    );
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Holds a value against a schema of the description, as far as that goes: types, what must be
/// there, constants, choices. What is there and not described is wrong, too.
fn conforms(description: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = description.pointer(&reference[1..]).unwrap();
        return conforms(description, schema, value, at);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let chosen = choices
            .iter()
            .find(|one| (one["type"] == "null") == value.is_null());
        return conforms(description, chosen.unwrap(), value, at);
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(choices) = schema["enum"].as_array() {
        assert!(choices.contains(value), "{at}: {value}");
    }
    let name = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match &schema["type"] {
        Value::String(kind) => assert_eq!(kind, name, "{at}: {value}"),
        Value::Array(kinds) => assert!(kinds.contains(&name.into()), "{at}: {value}"),
        _ => {}
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        let key = key.as_str().unwrap();
        assert!(value.get(key).is_some(), "{at}.{key} is missing");
    }
    if let (Some(known), Some(table)) = (schema["properties"].as_object(), value.as_object()) {
        for (key, inner) in table {
            let schema = known.get(key);
            let schema = schema.unwrap_or_else(|| panic!("{at}.{key} is not described"));
            conforms(description, schema, inner, &format!("{at}.{key}"));
        }
    }
    for (number, inner) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            conforms(description, schema, inner, &format!("{at}[{number}]"));
        }
    }
}

#[test]
fn every_reply_is_as_the_api_describes_it() {
    let broken = "[databases.broken]\nengine = \"command\"\ncommand = [\"false\"]\n";
    let world = World::new(&(slow("shop", YEARLY) + broken));
    world.run(&["backup"]);
    world.run(&["verify", "shop"]);
    let (running, address) = listening(&world, &["127.0.0.1:0"]);
    let description = json(&address, "/api/v1/openapi.json");
    let mut seen = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        let content = &methods["get"]["responses"]["200"]["content"]["application/json"];
        if let Some(schema) = content.get("schema") {
            conforms(&description, schema, &json(&address, path), path);
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
    let status = json(&address, "/api/v1/status");
    let health = |at: usize| {
        status["databases"][at]["health"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!((health(0), health(1)), ("good".into(), "missing".into()));
    let backups = json(&address, "/api/v1/backups?database=shop");
    assert_eq!(backups["backups"].as_array().unwrap().len(), 1);
    let none = json(&address, "/api/v1/backups?database=broken");
    assert_eq!(none["backups"].as_array().unwrap().len(), 0);
    end(&world, running);
}

#[test]
fn what_is_under_way_is_told_while_it_is_and_its_run_is_shown_when_it_is_over() {
    let soon = "schedule = \"*/2 * * * * *\"\n";
    // Longer than the second between two events, which may be in step with the schedule.
    let long = slow("shop", soon).replace("sleep 0.5", "sleep 3");
    let world = World::new(&long);
    world.run(&["backup"]);
    let (running, address) = listening(&world, &["127.0.0.1:0"]);
    let mut socket = TcpStream::connect(&address).unwrap();
    let request = format!("GET /api/v1/events HTTP/1.1\r\n{HERE}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let (mut heard, mut buffer) = (String::new(), [0; 4096]);
    let is_told = |heard: &str| {
        heard.contains("\"database\":\"shop\"") && heard.contains("\"phase\":\"running\"")
    };
    while !is_told(&heard) {
        let length = socket.read(&mut buffer).unwrap();
        assert!(length > 0, "{heard}");
        heard += &String::from_utf8_lossy(&buffer[..length]);
    }
    assert!(heard.contains("content-type: text/event-stream") && heard.contains("event: runs\n"));
    wait_until(|| {
        let runs = json(&address, "/api/v1/runs");
        runs["ended"]
            .as_array()
            .is_some_and(|ended| !ended.is_empty())
    });
    let page = get(&address, "/runs", HERE);
    assert!(page.contains("<title>shop, dump 1: "), "{page}");
    drop(socket);
    end(&world, running);
}

#[test]
fn buttons_are_there_where_they_are_allowed_and_work_from_our_own_page_alone() {
    let world = World::new(&slow("shop", YEARLY));
    world.run(&["backup"]);
    let (running, address) = listening(&world, &["127.0.0.1:0"]);
    let page = get(&address, "/database?name=shop", HERE);
    assert!(page.contains("<h1>shop</h1>") && !page.contains("method=post"));
    let ours = format!("host: {address}\r\norigin: http://{address}\r\n");
    let answer = press(&address, &ours, "action=run&database=shop&token=");
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    end(&world, running);

    let (running, address) = listening(&world, &["127.0.0.1:0", "--allow-actions"]);
    let ours = format!("host: {address}\r\norigin: http://{address}\r\n");
    let page = get(&address, "/database?name=shop", HERE);
    let (_, rest) = page.split_once("name=token value=\"").unwrap();
    let token = rest.split('"').next().unwrap();
    let form = |action: &str| format!("action={action}&database=shop&token={token}");
    let refused = |headers: &str, form: &str, code: &str| {
        let answer = press(&address, headers, form);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code}")),
            "{form}: {answer}"
        );
    };
    refused("host: localhost\r\n", &form("run"), "403");
    let foreign = format!("host: {address}\r\norigin: http://evil.example\r\n");
    refused(&foreign, &form("run"), "403");
    refused(
        "host: evil.example\r\norigin: http://evil.example\r\n",
        &form("run"),
        "403",
    );
    refused(&ours, "action=run&database=shop&token=x", "403");
    refused(&ours, &form("erase"), "400");
    refused(
        &ours,
        &format!("action=run&database=nowhere&token={token}"),
        "400",
    );
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(manifests(&world, "shop"), 1, "nothing was done");
    for _ in 0..2 {
        let answer = press(&address, &ours, &form("run"));
        assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
        assert!(
            answer.contains("location: /database?name=shop\r\n"),
            "{answer}"
        );
    }
    wait_until(|| manifests(&world, "shop") == 2);
    assert!(press(&address, &ours, &form("verify")).starts_with("HTTP/1.1 303"));
    let verified = "backups/~tapline/records/shop/verify.json";
    wait_until(|| world.server.store().read(verified).is_some());
    assert!(press(&address, &ours, &form("drill")).starts_with("HTTP/1.1 303"));
    wait_until(|| log(&world).contains("asked for on the page: drill of shop"));
    assert_eq!(
        manifests(&world, "shop"),
        2,
        "the second wish came while it was under way"
    );
    end(&world, running);
}

#[test]
fn every_answer_forbids_what_a_page_of_others_could_do_with_it() {
    let world = World::new(&slow("shop", YEARLY));
    let (running, address) = listening(&world, &["127.0.0.1:0"]);
    for path in [
        "/",
        "/database?name=shop",
        "/runs",
        "/style.css",
        "/script.js",
        "/api/v1/runs",
    ] {
        let start = Instant::now();
        let answer = get(&address, path, HERE);
        assert!(start.elapsed() < Duration::from_secs(20), "{path}");
        let head = answer.split("\r\n\r\n").next().unwrap();
        for words in [
            "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "referrer-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(words), "{path}: {words}: {head}");
        }
        assert!(!head.contains("unsafe-inline") && answer.len() < 100_000);
    }
    assert!(get(&address, "/database?name=nowhere", HERE).starts_with("HTTP/1.1 404"));
    end(&world, running);
}

//! Writes, searches and parses tens of megabytes of JSON; the argument is how many records (about 200 bytes each).

use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct Record {
    id: u64,
    name: String,
    mail: String,
    score: f64,
    tags: Vec<String>,
    nested: BTreeMap<String, Option<i64>>,
}

fn record(id: u64) -> Record {
    let hash = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
    Record {
        id,
        name: format!("Näme \"{}\" \u{1F600}", hash % 10_000),
        mail: format!("user{}@host{}.example", hash % 5_000, hash % 77),
        score: (hash % 100_000) as f64 / 3.0,
        tags: (0..hash % 5)
            .map(|t| format!("tag-{}", (hash >> t) % 40))
            .collect(),
        nested: [
            ("a".into(), None),
            ("b".into(), Some(-(hash as i64 % 1000))),
        ]
        .into(),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(20_000);
    let records: Vec<Record> = (0..count).map(record).collect();
    let text = serde_json::to_string(&records)?;
    println!("{} bytes", text.len());
    let back: Vec<Record> = serde_json::from_str(&text)?;
    println!("same {}", back == records);
    let value: serde_json::Value = serde_json::from_str(&text)?;
    println!("elements {:?}", value.as_array().map(Vec::len));
    for pattern in [
        r"user(\d{2})@host\d+\.example",
        r#""tag-(1|2)\d?""#,
        r"(?i)n[äÄ]me",
        r"[^\x00-\x7F]+",
        r"\b\d+\.\d{10,}\b",
    ] {
        let regex = Regex::new(pattern)?;
        println!("{pattern}: {}", regex.find_iter(&text).count());
    }
    let replaced = Regex::new(r"user(?<n>\d+)@")?.replace_all(&text, "nobody-$n@");
    println!("replaced {} bytes", replaced.len());
    Ok(())
}

//! A file database: inserts, an index, queries, updates, a rollback, another journal mode. The argument is how many rows.

use rusqlite::{Connection, Result, params};
use std::time::Instant;

fn main() -> Result<()> {
    let rows: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    let path = std::env::temp_dir().join(format!("unik-example-{}.db", std::process::id()));
    let start = Instant::now();
    {
        let mut db = Connection::open(&path)?;
        fill(&mut db, rows)?;
        query(&db)?;
        change(&mut db)?;
    }
    let db = Connection::open(&path)?;
    println!(
        "check {}",
        db.query_row("PRAGMA integrity_check", [], |r| r.get::<_, String>(0))?
    );
    println!(
        "journal {}",
        db.query_row("PRAGMA journal_mode = PERSIST", [], |r| r
            .get::<_, String>(0))?
    );
    println!(
        "rows {}",
        db.query_row("SELECT count(*) FROM item", [], |r| r.get::<_, i64>(0))?
    );
    drop(db);
    println!(
        "bytes {}",
        std::fs::metadata(&path).is_ok_and(|m| m.len() > rows * 20)
    );
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_file(path.with_extension("db-journal"));
    eprintln!("{rows} rows in {:?}", start.elapsed());
    Ok(())
}

fn fill(db: &mut Connection, rows: u64) -> Result<()> {
    db.execute_batch(
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL, weight REAL, data BLOB)",
    )?;
    let transaction = db.transaction()?;
    {
        let mut insert =
            transaction.prepare("INSERT INTO item (name, weight, data) VALUES (?1, ?2, ?3)")?;
        for n in 0..rows {
            let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            insert.execute(params![
                format!("item {}", hash % 1000),
                (hash % 977) as f64 / 7.0,
                hash.to_le_bytes()
            ])?;
        }
    }
    transaction.commit()?;
    db.execute_batch("CREATE INDEX by_name ON item (name)")
}

fn query(db: &Connection) -> Result<()> {
    let mut statement = db.prepare("SELECT name, count(*), round(sum(weight), 3) FROM item GROUP BY name ORDER BY 2 DESC, 1 LIMIT 3")?;
    let groups = statement.query_map([], |r| {
        Ok((
            r.get::<_, String>(0)?,
            r.get::<_, i64>(1)?,
            r.get::<_, f64>(2)?,
        ))
    })?;
    for group in groups {
        println!("group {:?}", group?);
    }
    println!(
        "one {}",
        db.query_row("SELECT hex(data) FROM item WHERE id = 777", [], |r| r
            .get::<_, String>(0))?
    );
    Ok(())
}

fn change(db: &mut Connection) -> Result<()> {
    println!(
        "updated {}",
        db.execute(
            "UPDATE item SET weight = weight + 1 WHERE name LIKE 'item 1%'",
            []
        )?
    );
    let transaction = db.transaction()?;
    println!(
        "deleted {}",
        transaction.execute("DELETE FROM item WHERE id % 2 = 0", [])?
    );
    transaction.rollback()?;
    println!(
        "deleted {}",
        db.execute("DELETE FROM item WHERE id % 10 = 0", [])?
    );
    db.execute_batch("VACUUM")
}

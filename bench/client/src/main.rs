//! The loop of the field's script, as kindly as it can be modelled: prepared statements, no ORM, a local server, the
//! canonical key by look-up in a unique index. It pages by LIMIT and OFFSET as its specification says, opens one
//! transaction for each lesson, and waits for the answer of each statement.
//!
//! `lesson-by-lesson DSN LESSONS` → prints the seconds that LESSONS lessons took.

use std::time::Instant;

use postgres::{Client, NoTls, Statement, Transaction};
use serde_json::{json, Value};
use uuid::Uuid;

const PAGE: i64 = 500;

struct Statements {
    find_asset: Statement,
    insert_asset: Statement,
    find_usage: Statement,
    insert_usage: Statement,
    update_lesson: Statement,
}

impl Statements {
    fn prepare(client: &mut Client) -> Result<Self, postgres::Error> {
        Ok(Statements {
            find_asset: client
                .prepare("SELECT id FROM assets WHERE organization_id = $1 AND canonical_key = $2")?,
            insert_asset: client.prepare(
                "INSERT INTO assets (organization_id, kind, provider, storage_provider, storage_key, source_url, \
                 byte_size, title, is_external, status, metadata, canonical_key) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'active', $10, $11) RETURNING id",
            )?,
            find_usage: client.prepare(
                "SELECT id FROM asset_usages WHERE organization_id = $1 AND asset_id = $2 AND target_type = 'lesson' \
                 AND target_id = $3 AND slot_type = $4 AND slot_key IS NULL AND \"position\" = $5",
            )?,
            insert_usage: client.prepare(
                "INSERT INTO asset_usages (organization_id, asset_id, target_type, target_id, slot_type, \"position\") \
                 VALUES ($1, $2, 'lesson', $3, $4, $5)",
            )?,
            update_lesson: client.prepare("UPDATE lesson SET videos = $2, documents = $3 WHERE id = $1")?,
        })
    }
}

/// What the script makes of an item: provider, kind, storage key, link.
struct Media<'a> {
    provider: &'a str,
    kind: &'static str,
    storage_key: Option<&'a str>,
    source_url: Option<&'a str>,
}

impl<'a> Media<'a> {
    fn of(item: &'a Value, slot: &str) -> Option<Self> {
        let text = |field: &str| item.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (storage_key, source_url) = (text("key"), text("link"));
        let document = slot == "lesson_document";
        let provider = match (text("type"), storage_key) {
            (Some(provider), _) if !document => provider,
            (_, Some(_)) => "upload",
            _ => "external_url",
        };
        storage_key.or(source_url)?;
        Some(Media {
            provider,
            kind: if document { "document" } else { "video" },
            storage_key,
            source_url,
        })
    }

    fn natural_key(&self) -> String {
        match self.storage_key {
            Some(key) => format!("upload:{key}"),
            None => format!(
                "{}:{}:{}",
                self.provider,
                self.kind,
                self.source_url.unwrap_or_default()
            ),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dsn), Some(lessons)) = (arguments.next(), arguments.next()) else {
        return Err("usage: lesson-by-lesson DSN LESSONS".into());
    };
    let lessons: i64 = lessons.parse()?;
    let mut client = Client::connect(&dsn, NoTls)?;
    // A plan that was made while the tables were empty must not stay a sequential scan: the loop is measured, not that.
    client.batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")?;
    let statements = Statements::prepare(&mut client)?;
    let page = client.prepare(
        "SELECT l.id, g.organization_id, l.videos, l.documents FROM lesson l \
         JOIN course c ON c.id = l.course_id JOIN \"group\" g ON g.id = c.group_id \
         ORDER BY l.id LIMIT $1 OFFSET $2",
    )?;

    let began = Instant::now();
    let mut offset = 0;
    while offset < lessons {
        for row in client.query(&page, &[&PAGE.min(lessons - offset), &offset])? {
            let mut transaction = client.transaction()?;
            let slots = [("lesson_video", row.get(2)), ("lesson_document", row.get(3))];
            lesson(&mut transaction, &statements, row.get(0), row.get(1), slots)?;
            transaction.commit()?;
        }
        offset += PAGE;
    }
    println!("{:.6}", began.elapsed().as_secs_f64());
    Ok(())
}

fn lesson(
    transaction: &mut Transaction<'_>,
    statements: &Statements,
    id: Uuid,
    organization: Uuid,
    mut slots: [(&str, Option<Value>); 2],
) -> Result<(), postgres::Error> {
    let target = id.to_string();
    for (slot, items) in &mut slots {
        let items = items.as_mut().and_then(Value::as_array_mut).into_iter().flatten();
        for (position, item) in (0_i32..).zip(items) {
            let Some(media) = Media::of(item, slot) else { continue };
            let key = media.natural_key();
            let asset: Uuid = match transaction.query_opt(&statements.find_asset, &[&organization, &key])? {
                Some(row) => row.get(0),
                None => {
                    let external = media.storage_key.is_none();
                    let storage = if external { "external" } else { "s3" };
                    let size = item.get("size").and_then(Value::as_i64);
                    let title = item.get("fileName").or(item.get("name")).and_then(Value::as_str);
                    let metadata = item.get("metadata").cloned().unwrap_or_else(|| json!({}));
                    transaction
                        .query_one(
                            &statements.insert_asset,
                            &[
                                &organization,
                                &media.kind,
                                &media.provider,
                                &storage,
                                &media.storage_key,
                                &media.source_url,
                                &size,
                                &title,
                                &external,
                                &metadata,
                                &key,
                            ],
                        )?
                        .get(0)
                }
            };
            let usage = [
                &organization as &(dyn postgres::types::ToSql + Sync),
                &asset,
                &target,
                slot,
                &position,
            ];
            if transaction.query_opt(&statements.find_usage, &usage)?.is_none() {
                transaction.execute(&statements.insert_usage, &usage)?;
            }
            item["assetId"] = json!(asset.to_string());
        }
    }
    let [(_, videos), (_, documents)] = slots;
    transaction.execute(&statements.update_lesson, &[&id, &videos, &documents])?;
    Ok(())
}

//! The loops of the field's scripts for thumbnails and S3 assets, as kindly as they can be modelled: prepared statements, a
//! local server, a transaction for each row, and the answer of each statement waited for. Unlike the scripts they leave the
//! rows that the jobs leave: a chain of videos is walked to its end, no reference is doubled, sessions get their sums.
//!
//! `row-by-row DSN i2v|s3` → prints the seconds that it took.

use std::collections::HashSet;
use std::error::Error;
use std::time::Instant;

use postgres::{Client, NoTls};
use serde_json::{json, Value};

const PAGE: i64 = 500;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dsn), Some(job)) = (arguments.next(), arguments.next()) else {
        return Err("usage: row-by-row DSN i2v|s3".into());
    };
    let mut client = Client::connect(&dsn, NoTls)?;
    // A plan that was made while the tables were empty must not stay a sequential scan: the loop is measured, not that.
    client.batch_execute("SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off")?;
    let began = Instant::now();
    match job.as_str() {
        "i2v" => thumbnails(&mut client)?,
        "s3" => {
            scenes(&mut client)?;
            sessions(&mut client)?;
        }
        _ => return Err("the job is i2v or s3".into()),
    }
    println!("{:.6}", began.elapsed().as_secs_f64());
    Ok(())
}

/// The two thumbnail columns, with blanks taken for nothing.
struct Thumbnails {
    url: Option<String>,
    urls: Option<Value>,
}

impl Thumbnails {
    fn of(url: Option<String>, urls: Option<Value>) -> Self {
        Thumbnails {
            url: url.filter(|url| !url.trim().is_empty()),
            urls: urls.filter(|urls| urls.as_object().is_some_and(|sizes| !sizes.is_empty())),
        }
    }

    fn are_complete(&self) -> bool {
        self.url.is_some() && self.urls.is_some()
    }
}

fn thumbnails(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let page = client.prepare(
        "SELECT id, thumbnail_url, thumbnail_urls, is_public FROM media WHERE type = 'video' AND id > $1 ORDER BY id LIMIT $2",
    )?;
    let job = client.prepare("SELECT COALESCE(media_id, original_media_id) FROM i2v_jobs WHERE job_id = $1")?;
    let by_result = client.prepare(
        "SELECT COALESCE(media_id, original_media_id) FROM i2v_jobs WHERE result_media_id = $1 ORDER BY job_id LIMIT 1",
    )?;
    let media = client.prepare("SELECT thumbnail_url, thumbnail_urls, is_public FROM media WHERE id = $1")?;
    let update =
        client.prepare("UPDATE media SET thumbnail_url = $2, thumbnail_urls = $3, updated_at = now() WHERE id = $1")?;
    let mut after = String::new();
    loop {
        let videos = client.query(&page, &[&after, &PAGE])?;
        let Some(last) = videos.last() else { return Ok(()) };
        after = last.get(0);
        for video in &videos {
            let id: String = video.get(0);
            let mut own = Thumbnails::of(video.get(1), video.get(2));
            if own.are_complete() {
                continue;
            }
            let lacked = (own.url.is_none(), own.urls.is_none());
            let mut receiver_is_private = video.get::<_, Option<bool>>(3) == Some(false);
            let mut transaction = client.transaction()?;
            let mut seen = HashSet::from([id.clone()]);
            let mut at = id.clone();
            while !own.are_complete() {
                let found = match transaction.query_opt(&job, &[&at])? {
                    Some(found) => Some(found),
                    None => transaction.query_opt(&by_result, &[&at])?,
                };
                let Some(source) = found.and_then(|found| found.get::<_, Option<String>>(0)) else {
                    break;
                };
                if !seen.insert(source.clone()) {
                    break;
                }
                let Some(row) = transaction.query_opt(&media, &[&source])? else {
                    break;
                };
                let is_private = row.get::<_, Option<bool>>(2) == Some(false);
                if is_private && !receiver_is_private {
                    break;
                }
                let theirs = Thumbnails::of(row.get(0), row.get(1));
                own = Thumbnails {
                    url: own.url.or(theirs.url),
                    urls: own.urls.or(theirs.urls),
                };
                receiver_is_private = is_private;
                at = source;
            }
            if lacked != (own.url.is_none(), own.urls.is_none()) {
                transaction.execute(&update, &[&id, &own.url, &own.urls])?;
            }
            transaction.commit()?;
        }
    }
}

fn content_type(key: &str, default: &'static str) -> &'static str {
    match key.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        _ => default,
    }
}

/// A struct, and what its reference takes of it.
struct Asset {
    key: String,
    url: Option<String>,
    content_type: &'static str,
    checksum: Option<String>,
}

impl Asset {
    fn to_struct(&self, uploaded_at: Option<f64>) -> Value {
        let mut members = json!({"s3Key": self.key, "contentType": self.content_type});
        for (name, value) in [
            ("s3Url", self.url.as_deref().map(Value::from)),
            ("checksum", self.checksum.as_deref().map(Value::from)),
            ("uploadedAt", uploaded_at.map(Value::from)),
        ] {
            if let Some(value) = value {
                members[name] = value;
            }
        }
        members
    }
}

fn scenes(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let page = client.prepare(
        "SELECT id, project_id, index, s3_chunk_key, s3_chunk_url, s3_source_key, checksum, extract(epoch FROM updated_at)::float8 \
         FROM scenes WHERE video_asset IS NULL AND s3_chunk_key IS NOT NULL AND id > $1 ORDER BY id LIMIT $2",
    )?;
    let update = client.prepare(
        "UPDATE scenes SET video_asset = $2, source_code_asset = $3, assets_status = COALESCE(assets_status, 'ready'), \
         asset_version = COALESCE(asset_version, 1), previous_asset_versions = COALESCE(previous_asset_versions, '[]') WHERE id = $1",
    )?;
    let find = client.prepare(
        "SELECT 1 FROM asset_references WHERE entity_type = 'scene' AND entity_id = $1 AND asset_type = $2 AND version = 1",
    )?;
    let insert = client.prepare(
        "INSERT INTO asset_references (entity_type, entity_id, asset_type, s3_key, s3_url, content_type, checksum, version, metadata) \
         VALUES ('scene', $1, $2, $3, $4, $5, $6, 1, $7)",
    )?;
    let mut after = String::new();
    loop {
        let rows = client.query(&page, &[&after, &PAGE])?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.get(0);
        for row in &rows {
            let (id, chunk_key): (String, String) = (row.get(0), row.get(3));
            let url = row.get::<_, Option<String>>(4);
            let url = url.map(|url| url.split('?').next().unwrap_or_default().to_owned());
            let video = Asset {
                content_type: content_type(&chunk_key, "video/mp4"),
                checksum: row.get(6),
                url: url.clone(),
                key: chunk_key,
            };
            let source = row.get::<_, Option<String>>(5).map(|key| {
                let origin = url.as_deref().and_then(|url| url.split('/').nth(2));
                Asset {
                    content_type: content_type(&key, "text/plain"),
                    checksum: None,
                    url: origin.map(|origin| format!("https://{origin}/{key}")),
                    key,
                }
            });
            let uploaded_at: Option<f64> = row.get(7);
            let metadata = json!({"migratedFromLegacy": true, "sceneIndex": row.get::<_, Option<i32>>(2),
                                  "projectId": row.get::<_, Option<String>>(1)});
            let structs = (
                video.to_struct(uploaded_at),
                source.as_ref().map(|source| source.to_struct(uploaded_at)),
            );
            let mut transaction = client.transaction()?;
            transaction.execute(&update, &[&id, &structs.0, &structs.1])?;
            for (asset_type, asset) in [("video_chunk", Some(&video)), ("source_code", source.as_ref())] {
                let Some(asset) = asset else { continue };
                if transaction.query_opt(&find, &[&id, &asset_type])?.is_none() {
                    transaction.execute(
                        &insert,
                        &[
                            &id,
                            &asset_type,
                            &asset.key,
                            &asset.url,
                            &asset.content_type,
                            &asset.checksum,
                            &metadata,
                        ],
                    )?;
                }
            }
            transaction.commit()?;
        }
    }
}

fn sessions(client: &mut Client) -> Result<(), Box<dyn Error>> {
    let page = client.prepare("SELECT id FROM video_sessions WHERE id > $1 ORDER BY id LIMIT $2")?;
    let of_scenes = client.prepare(
        "SELECT count(*), count(*) FILTER (WHERE assets_status = 'ready') FROM scenes WHERE session_id = $1",
    )?;
    let of_references = client.prepare(
        "SELECT count(*)::int, COALESCE(sum(r.size), 0)::bigint FROM scenes s \
         JOIN asset_references r ON r.entity_type = 'scene' AND r.entity_id = s.id WHERE s.session_id = $1",
    )?;
    let update = client.prepare(
        "UPDATE video_sessions SET asset_count = $2, total_asset_size = $3, assets_status = $4 WHERE id = $1",
    )?;
    let mut after = String::new();
    loop {
        let rows = client.query(&page, &[&after, &PAGE])?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.get(0);
        for row in &rows {
            let id: String = row.get(0);
            let mut transaction = client.transaction()?;
            let scenes = transaction.query_one(&of_scenes, &[&id])?;
            let (all, ready): (i64, i64) = (scenes.get(0), scenes.get(1));
            let references = transaction.query_one(&of_references, &[&id])?;
            let (count, size): (i32, i64) = (references.get(0), references.get(1));
            let status = if all > 0 && all == ready { "ready" } else { "pending" };
            transaction.execute(&update, &[&id, &count, &size, &status])?;
            transaction.commit()?;
        }
    }
}

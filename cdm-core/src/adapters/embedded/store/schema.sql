-- Records and the journal. A body is a document (see `records`); the other columns exist for queries.
CREATE TABLE IF NOT EXISTS sites (
    id TEXT PRIMARY KEY, uid TEXT NOT NULL, version INTEGER NOT NULL,
    service TEXT NOT NULL, state TEXT NOT NULL, search TEXT NOT NULL,
    write INTEGER, answer TEXT, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS sites_by_service ON sites (service, id);
-- The write that removed a site, so that a repetition of the write is recognized.
CREATE TABLE IF NOT EXISTS removed (id TEXT PRIMARY KEY, write INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hostnames (host TEXT PRIMARY KEY, site TEXT NOT NULL) WITHOUT ROWID;
-- The records of the two services, of the fleet, of the webhooks and of the users.
CREATE TABLE IF NOT EXISTS shared (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, write INTEGER, body TEXT NOT NULL
);
-- Operations in a record, except those of members of rollouts.
CREATE TABLE IF NOT EXISTS working (
    subject TEXT PRIMARY KEY, number INTEGER NOT NULL, kind TEXT NOT NULL, status TEXT NOT NULL,
    rests INTEGER NOT NULL, owner TEXT, wake INTEGER, asked INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollouts (
    number INTEGER PRIMARY KEY, version INTEGER NOT NULL, active INTEGER NOT NULL,
    owner TEXT, wake INTEGER, asked INTEGER NOT NULL, write INTEGER, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS rollouts_active ON rollouts (number) WHERE active;
CREATE TABLE IF NOT EXISTS pages (
    rollout INTEGER NOT NULL, page INTEGER NOT NULL, write INTEGER, body TEXT NOT NULL,
    PRIMARY KEY (rollout, page)
);
CREATE TABLE IF NOT EXISTS history (
    id TEXT PRIMARY KEY, number INTEGER NOT NULL, subject TEXT NOT NULL, kind TEXT NOT NULL,
    status TEXT NOT NULL, member INTEGER NOT NULL, write INTEGER, body TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS history_by_number ON history (number) WHERE NOT member;
CREATE INDEX IF NOT EXISTS history_by_subject ON history (subject, number) WHERE NOT member;
CREATE TABLE IF NOT EXISTS numbers (one INTEGER PRIMARY KEY CHECK (one = 1), drawn INTEGER NOT NULL);
INSERT OR IGNORE INTO numbers VALUES (1, 0);
CREATE TABLE IF NOT EXISTS beats (worker TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    actor TEXT NOT NULL, key TEXT NOT NULL, at INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (actor, key)
);
CREATE INDEX IF NOT EXISTS keys_by_age ON keys (at);
CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);

-- Files that questions name, once each, by the SHA-256 of their content: what a spec refers to as blob:SHA256:PATH, so that its game can be built again anywhere.
CREATE TABLE blobs (
    hash VARCHAR PRIMARY KEY,
    content BLOB NOT NULL
);

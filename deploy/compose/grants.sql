-- What the lab's account may do: declare, fill and drop tables, and see all rows that may refer to
-- objects in the store. MariaDB's image runs this once, when the database is new.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW,
    TRIGGER, LOCK TABLES, CREATE TEMPORARY TABLES
    ON *.* TO 'lab'@'%';

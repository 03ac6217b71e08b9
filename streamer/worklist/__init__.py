"""The lab's book: the slides of many journals in one list, in SQLite or PostgreSQL. SQLAlchemy is the extra `worklist`,
psycopg, which it needs for PostgreSQL, the extra `postgresql`.

entries: what is listed of a slide. reading: a journal as entries. address: where a list is kept. tables: its tables,
their version, opening. putting, finding: of one
transaction each; book: the list itself. server: its page. Nothing here writes a journal.
"""

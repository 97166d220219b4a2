package database_test

import (
	"context"
	"database/sql"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	_ "modernc.org/sqlite"

	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/database"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// A base is a database with the table item, and its URL for a reader.
type base struct {
	dsn   string
	count func(t *testing.T) int // of items
}

func openSQLite(t *testing.T) base {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE item (name TEXT, price REAL, n INTEGER); INSERT INTO item VALUES ('apple', 1.5, 3), ('pear; tasty', 2, NULL)"); err != nil {
		t.Fatal(err)
	}
	return base{"sqlite://" + file, func(t *testing.T) int {
		t.Helper()
		n := 0
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM item").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}}
}

func openPostgres(t *testing.T) base {
	t.Helper()
	admin := storetest.Postgres(t)
	conn, err := pgx.Connect(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	role := "reader_" + strings.ReplaceAll(strings.Trim(u.Path, "/"), "-", "_")
	for _, text := range []string{
		"CREATE TABLE item (name text, price float8, n int)",
		"INSERT INTO item VALUES ('apple', 1.5, 3), ('pear; tasty', 2, NULL)",
		"CREATE SEQUENCE counter",
		"CREATE FUNCTION sneak() RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO item VALUES ('sneaked', 0, 0); RETURN 1; END $$",
		"CREATE ROLE " + role + " LOGIN PASSWORD 'hushhush'",
		"GRANT ALL ON ALL TABLES IN SCHEMA public TO " + role, // the transaction must hold it back
		"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO " + role,
		"GRANT CREATE ON SCHEMA public TO " + role,
	} {
		if _, err := conn.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, text := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := conn.Exec(context.Background(), text); err != nil {
				t.Error(err)
			}
		}
	})
	u.User = url.UserPassword(role, "hushhush")
	return base{u.String(), func(t *testing.T) int {
		t.Helper()
		n := 0
		if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM item").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}}
}

var bases = map[string]func(*testing.T) base{"sqlite": openSQLite, "postgres": openPostgres}

func TestQueryGivesRows(t *testing.T) {
	for name, open := range bases {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			got, err := database.Query(t.Context(), b.dsn, "SELECT name, price, n FROM item WHERE price < $1 ORDER BY name", []any{int64(10)}, 200)
			if err != nil {
				t.Fatal(err)
			}
			want := tool.Rows{Columns: []string{"name", "price", "n"}, Rows: [][]any{{"apple", 1.5, int64(3)}, {"pear; tasty", 2.0, nil}}}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if got, err = database.Query(t.Context(), b.dsn, "SELECT 'a;b' AS x -- a comment; with a semicolon", nil, 200); err != nil || len(got.Rows) != 1 {
				t.Errorf("a semicolon in quotes or comments: %v, %v", got, err)
			}
		})
	}
}

func TestQueryGivesNoMoreThanIsWanted(t *testing.T) {
	many := "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 5000) SELECT i FROM c"
	for name, open := range bases {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			for _, most := range []int{1, 200, 1000} {
				got, err := database.Query(t.Context(), b.dsn, many, nil, most)
				if err != nil || len(got.Rows) != most || !got.More {
					t.Errorf("%d rows are wanted: got %d, more: %v, %v", most, len(got.Rows), got.More, err)
				}
			}
			if got, err := database.Query(t.Context(), b.dsn, many, nil, 5000); err != nil || len(got.Rows) != 5000 || got.More {
				t.Errorf("all rows are wanted: got %d, more: %v, %v", len(got.Rows), got.More, err)
			}
		})
	}
}

func TestQueryRefusesToWrite(t *testing.T) {
	texts := map[string][]string{
		"sqlite": {
			"DELETE FROM item", "SELECT 1; DELETE FROM item", "SELECT 1);DELETE FROM item;SELECT (1", "SELECT 1\n) ; DELETE FROM item --",
			"INSERT INTO item VALUES ('x', 1, 1) RETURNING name", "WITH x AS (DELETE FROM item RETURNING *) SELECT * FROM x", "DROP TABLE item",
			"PRAGMA query_only = 0", "PRAGMA writable_schema = 1", "SELECT * FROM pragma_query_only(0)", "SELECT 1; PRAGMA query_only = 0; DELETE FROM item",
			"ATTACH 'DIR/other.db' AS other", "SELECT 1); ATTACH 'DIR/other.db' AS other; SELECT (1", "VACUUM INTO 'DIR/copy.db'",
			"SELECT writefile('DIR/out', 'x')", "SELECT load_extension('x')", "SELECT 'it''s' /* ; */; DELETE FROM item", "SELECT [a;b]; DELETE FROM item",
			"SELECT \"a\"\"; \"; DELETE FROM item", "SELECT 1 -- \n; DELETE FROM item", "SELECT 1 /* ; DELETE FROM item",
		},
		"postgres": {
			"DELETE FROM item", "SELECT 1; DELETE FROM item", "SELECT 1) ; DELETE FROM item; --", "INSERT INTO item VALUES ('x', 1, 1) RETURNING name",
			"WITH x AS (DELETE FROM item RETURNING *) SELECT * FROM x", "SELECT sneak()", "SELECT setval('counter', 100)", "SELECT nextval('counter')",
			"COPY item TO PROGRAM 'cat > DIR/out'", "COPY (SELECT 1) TO 'DIR/out'", "SELECT * INTO other FROM item", "CREATE TABLE other (i int)",
			"SET TRANSACTION READ WRITE", "SELECT set_config('transaction_read_only', 'off', true), sneak()", "DO $$ BEGIN DELETE FROM item; END $$",
			"COMMIT", "CALL x()", "SELECT * FROM item FOR UPDATE", "SELECT pg_read_file('/etc/passwd')",
			"EXPLAIN ANALYZE DELETE FROM item", "LISTEN x", "PREPARE x AS DELETE FROM item",
		},
	}
	for name, open := range bases {
		t.Run(name, func(t *testing.T) {
			b, dir := open(t), t.TempDir()
			for _, text := range texts[name] {
				rows, err := database.Query(t.Context(), b.dsn, strings.ReplaceAll(text, "DIR", dir), nil, 10)
				if err == nil {
					t.Errorf("%s: gave %v", text, rows)
				} else if strings.Contains(err.Error(), "hushhush") || strings.Contains(err.Error(), "reader_") {
					t.Errorf("%s: the error names the URL: %v", text, err)
				}
				if n := b.count(t); n != 2 {
					t.Fatalf("%s: has left %d items", text, n)
				}
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("files were written: %v, %v", left, err)
			}
		})
	}
}

// What a server of an old version lets a reader do is undone.
func TestQueryLeavesNothingBehind(t *testing.T) {
	b := openPostgres(t)
	if _, err := database.Query(t.Context(), b.dsn, "SELECT lo_from_bytea(0, 'x')", nil, 10); err != nil {
		t.Log(err)
	}
	rows, err := database.Query(t.Context(), b.dsn, "SELECT count(*) FROM pg_largeobject_metadata", nil, 10)
	if err != nil || rows.Rows[0][0] != int64(0) {
		t.Errorf("got %v, %v", rows, err)
	}
}

func TestQueryRefusesASuperuser(t *testing.T) {
	_, err := database.Query(t.Context(), storetest.Postgres(t), "SELECT 1", nil, 10)
	if err == nil || !strings.Contains(err.Error(), "superuser") {
		t.Errorf("got %v", err)
	}
}

// A query could make itself a superuser again where the login is one, or may become one.
func TestQueryRefusesWhoMayBecomeASuperuser(t *testing.T) {
	b := openPostgres(t)
	admin := storetest.Postgres(t)
	reader, err := url.Parse(b.dsn)
	if err != nil {
		t.Fatal(err)
	}
	lesser, err := url.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	lesser.RawQuery += "&role=" + url.QueryEscape(reader.User.Username())
	conn, err := pgx.Connect(t.Context(), admin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	const become = "SELECT set_config('role', 'none', false), pg_catalog.current_setting('is_superuser')"
	if _, err := database.Query(t.Context(), lesser.String(), become, nil, 10); err == nil || !strings.Contains(err.Error(), "superuser") {
		t.Errorf("a superuser in a lesser role gets %v", err)
	}
	if _, err := database.Query(t.Context(), b.dsn, "SELECT 1", nil, 10); err != nil {
		t.Errorf("the reader gets %v", err)
	}
	if _, err := conn.Exec(t.Context(), "GRANT "+conn.Config().User+" TO "+reader.User.Username()); err != nil {
		t.Fatal(err)
	}
	if _, err := database.Query(t.Context(), b.dsn, "SELECT 1", nil, 10); err == nil || !strings.Contains(err.Error(), "superuser") {
		t.Errorf("a member of a superuser gets %v", err)
	}
}

func TestQueryBoundsWhatItReads(t *testing.T) {
	for name, text := range map[string]string{"sqlite": "SELECT hex(zeroblob(20000000)) AS x", "postgres": "SELECT repeat('x', 100000000) AS x"} {
		t.Run(name, func(t *testing.T) {
			_, err := database.Query(t.Context(), bases[name](t).dsn, text, nil, 10)
			if err == nil || !strings.Contains(err.Error(), "larger than") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestQueryErrorsAreReadable(t *testing.T) {
	for name, open := range bases {
		t.Run(name, func(t *testing.T) {
			_, err := database.Query(t.Context(), open(t).dsn, "SELECT nothing FROM item", nil, 10)
			if err == nil || !strings.Contains(err.Error(), "nothing") {
				t.Errorf("got %v", err)
			}
		})
	}
	for dsn, want := range map[string]string{
		"mysql://root:secretword@db/x":                            "postgres:// or sqlite:",
		"postgres://u:secretword@127.0.0.1:1/x?connect_timeout=1": "cannot be reached",
		"postgres://u:secretword@[bad/x":                          "cannot be read",
		"sqlite:shop.db":                                          "whole path",
		"sqlite:///there/is/no/secretword.db":                     "cannot be opened",
	} {
		_, err := database.Query(t.Context(), dsn, "SELECT 1", nil, 10)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secretword") {
			t.Errorf("%s: got %v", dsn, err)
		}
	}
}

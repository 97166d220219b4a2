package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// parting is how long the goodbye to a server may take.
const parting = 2 * time.Second

func askPostgres(ctx context.Context, dsn, text string, args []any, most int) (tool.Rows, error) {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return tool.Rows{}, errors.New("the database's URL cannot be read")
	}
	cfg.RuntimeParams["application_name"] = "orchestrator"
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		f := pgproto3.NewFrontend(r, w)
		f.SetMaxBodyLen(maxBytes)
		return f
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return tool.Rows{}, unreached(err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), parting)
		defer cancel()
		_ = conn.Close(ctx) // nothing was written
	}()
	// The first query takes the snapshot: from then on no one can make the
	// transaction one that writes.
	// Whoever has logged in can take every role of theirs by a mere function.
	begin := fmt.Sprintf("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = %d; SET LOCAL lock_timeout = %d; SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolsuper AND pg_catalog.pg_has_role(session_user, oid, 'MEMBER'))",
		timeout.Milliseconds(), timeout.Milliseconds())
	results, err := conn.Exec(ctx, begin).ReadAll()
	if err != nil {
		return tool.Rows{}, refused(err)
	}
	if last := results[len(results)-1]; len(last.Rows) != 1 || string(last.Rows[0][0]) != "f" {
		return tool.Rows{}, errors.New("the database's URL names a superuser, or a role that may become one, whom no database holds back; name a role that may only read")
	}
	// One statement, and one that is a query: the protocol and the grammar see to it.
	if r := conn.ExecParams(ctx, "DECLARE asked NO SCROLL CURSOR FOR "+text, parameters(args), nil, nil, nil).Read(); r.Err != nil {
		return tool.Rows{}, refused(r.Err)
	}
	var rows tool.Rows
	for size := 0; ; {
		r := conn.ExecParams(ctx, "FETCH "+strconv.Itoa(min(batch, most+1-len(rows.Rows)))+" FROM asked", nil, nil, nil, nil)
		if rows.Columns == nil {
			for _, f := range r.FieldDescriptions() {
				rows.Columns = append(rows.Columns, f.Name)
			}
		}
		n, more := 0, true
		for more && r.NextRow() {
			n++
			bytes := 0
			row := make([]any, len(r.Values()))
			for i, v := range r.Values() {
				bytes += len(v)
				row[i] = decoded(r.FieldDescriptions()[i].DataTypeOID, v)
			}
			more = fill(&rows, &size, row, bytes, most)
		}
		if _, err := r.Close(); err != nil {
			return tool.Rows{}, refused(err)
		}
		if n == 0 || !more {
			return rows, nil
		}
	}
}

// parameters are the values of $1, $2 as texts; the server knows their types.
func parameters(args []any) [][]byte {
	list := make([][]byte, len(args))
	for i, v := range args {
		switch v := v.(type) {
		case nil:
		case []any, map[string]any:
			list[i] = pipeline.EncodeValue(v)
		default:
			list[i] = []byte(expr.Text(v))
		}
	}
	return list
}

// decoded is a value in the server's text form as a JSON value. What JSON has no
// form for, as a number of any precision, stays a text.
func decoded(oid uint32, v []byte) any {
	if v == nil {
		return nil
	}
	s := string(v)
	switch oid {
	case pgtype.BoolOID:
		return s == "t"
	case pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
	case pgtype.Float4OID, pgtype.Float8OID:
		if f, err := strconv.ParseFloat(s, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
	case pgtype.JSONOID, pgtype.JSONBOID:
		if x, err := pipeline.DecodeValue(v); err == nil {
			return x
		}
	}
	return s
}

// unreached is why there is no connection, without what the URL says.
func unreached(err error) error {
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return errors.New("the database does not let us in; look at the user, the password and the database of its URL")
	}
	return errors.New("the database cannot be reached")
}

// refused is what the server says about a query.
func refused(err error) error {
	if p, ok := errors.AsType[*pgconn.PgError](err); ok {
		text := "the database says: " + p.Message
		if p.Detail != "" {
			text += "; " + p.Detail
		}
		if p.Hint != "" {
			text += " (" + p.Hint + ")"
		}
		switch p.Code {
		case "25006":
			text += ": this tool only reads"
		case "42601":
			text += ": this tool takes one SELECT, WITH, VALUES or TABLE, without a semicolon in it"
		}
		return errors.New(text)
	}
	if _, ok := errors.AsType[*pgproto3.ExceededMaxBodyLenErr](err); ok {
		return errTooLarge
	}
	return errors.New("the connection to the database broke")
}

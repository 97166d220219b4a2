package mcp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/oauth2"

	"github.com/orchestrator-project/orchestrator/store"
)

// Logins keeps what people's logins at servers have given, in a folder that its
// owner alone reads: a file for each. Several processes may share it.
//
// The login at a server of the installation counts for that entry and its address
// alone, since what it allows and denies is the operator's word; the login at a
// pipeline's server for every pipeline that names the address.
type Logins struct{ Dir string }

// login is what a file holds.
type login struct {
	Server       string           `json:"server"`
	URL          string           `json:"url"`
	ClientID     string           `json:"client_id"`
	ClientSecret string           `json:"client_secret,omitempty"`
	TokenURL     string           `json:"token_url"`
	AuthStyle    oauth2.AuthStyle `json:"auth_style"`
	Token        *oauth2.Token    `json:"token"`
}

func (l *Logins) file(s *Server) string {
	name := "url"
	if s.installed {
		name = s.Name
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %s %s", s.installed, name, s.URL))
	return filepath.Join(l.Dir, name+"-"+hex.EncodeToString(sum[:8])+".json")
}

// read gives the login at a server; nil: nobody has logged in.
func (l *Logins) read(s *Server) (*login, error) {
	if l == nil {
		return nil, nil
	}
	text, err := os.ReadFile(l.file(s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var got login
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err == nil && (got.URL != s.URL || got.Token == nil) {
		err = errors.New("it is not one")
	}
	if err != nil {
		return nil, fmt.Errorf("read the login at %s: %w", s.Name, err)
	}
	return &got, nil
}

func (l *Logins) write(s *Server, got *login) error {
	text, err := json.MarshalIndent(got, "", "  ") //nolint:gosec // the file is its owner's alone
	if err == nil {
		err = os.MkdirAll(l.Dir, 0o700)
	}
	var f *os.File
	if err == nil {
		f, err = os.CreateTemp(l.Dir, ".new-*") // of mode 0600
	}
	if err == nil {
		_, err = f.Write(append(text, '\n'))
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if err == nil {
			err = os.Rename(f.Name(), l.file(s))
		}
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}
	if err != nil {
		return fmt.Errorf("keep the login at %s: %w", s.Name, err)
	}
	return nil
}

// Forget removes the login at a server, and reports whether there was one.
func (l *Logins) Forget(s Server) (bool, error) {
	err := os.Remove(l.file(&s))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Has reports whether somebody has logged in at a server.
func (l *Logins) Has(s Server) bool {
	got, err := l.read(&s)
	return err == nil && got != nil
}

// refreshed gives a login whose token is another one than old, and good. Since some
// servers take a refresh token once, one process asks while the others wait.
func (l *Logins) refreshed(ctx context.Context, s *Server, client *http.Client, old string) (*login, error) {
	lock, err := store.LockFile(ctx, filepath.Join(l.Dir, ".lock"), 2*tokenWait)
	if err != nil {
		return nil, fmt.Errorf("lock the logins: %w", err)
	}
	defer lock.Release()
	got, err := l.read(s)
	if err != nil || got == nil || got.Token.AccessToken != old && got.Token.Valid() {
		return got, err
	}
	if got.Token.RefreshToken == "" {
		return nil, errors.New("the token is over, and cannot be renewed")
	}
	cfg := oauth2.Config{ClientID: got.ClientID, ClientSecret: got.ClientSecret, Endpoint: oauth2.Endpoint{TokenURL: got.TokenURL, AuthStyle: got.AuthStyle}}
	t, err := cfg.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, client), &oauth2.Token{RefreshToken: got.Token.RefreshToken}).Token()
	if err != nil {
		return nil, fmt.Errorf("the token cannot be renewed: %w", short(err))
	}
	got.Token = t
	return got, l.write(s, got)
}

// short leaves out what a server of tokens has answered but its own word for what is
// wrong: it may repeat what it was sent.
func short(err error) error {
	if r, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		if r.ErrorCode != "" {
			return fmt.Errorf("the server of tokens says %s", r.ErrorCode)
		}
		return fmt.Errorf("the server of tokens says %s", r.Response.Status)
	}
	return err
}

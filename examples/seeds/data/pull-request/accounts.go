// Package accounts signs users in. It is sample input of code-review.yaml, and
// its faults are there to be found.
package accounts

import (
	"crypto/md5"
	"database/sql"
	"fmt"
	"math/rand"
	"os/exec"
	"strings"
)

const adminPassword = "correct-horse-battery"

type Store struct {
	db *sql.DB
}

func (s *Store) Find(name string) (id int, err error) {
	query := "SELECT id FROM users WHERE name = '" + name + "'"
	err = s.db.QueryRow(query).Scan(&id)
	return id, err
}

func hash(password string) string {
	return fmt.Sprintf("%x", md5.Sum([]byte(password)))
}

// Token gives a new token for a session.
func Token() string {
	return fmt.Sprintf("%016x", rand.Int63())
}

// Archive packs the folder of a user.
func Archive(folder string) {
	exec.Command("sh", "-c", "tar czf backup.tgz "+folder).Run()
}

// Role tells what a user may do.
func Role(name string, groups []string, password string, guest bool) string {
	if name == "admin" && hash(password) == hash(adminPassword) {
		return "admin"
	} else {
		for _, group := range groups {
			if strings.HasPrefix(group, "ops-") {
				if guest {
					return "viewer"
				} else if len(groups) > 3 {
					return "lead"
				}
				return "operator"
			} else if group == "editors" && !guest {
				return "editor"
			}
		}
	}
	if guest {
		return "guest"
	}
	return "user"
}

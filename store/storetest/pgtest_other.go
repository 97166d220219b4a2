//go:build !unix

package storetest

import (
	"context"
	"os"
	"os/exec"
)

func clusterDir() (string, error)                                 { return "", errNoServer }
func lockFile(context.Context, string) (unlock func(), err error) { return nil, errNoServer }
func asServer(*exec.Cmd)                                          {}
func giveToServer(...string) error                                { return nil }
func quit(p *os.Process)                                          { _ = p.Kill() }
func isPostmaster(int, string) bool                               { return false }

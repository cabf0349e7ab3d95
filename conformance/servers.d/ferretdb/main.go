// FerretDB as a library: MongoDB's wire protocol over a PostgreSQL database or a folder of SQLite files, for tests. Its own
// command expects files that only its releases generate.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if len(os.Args) != 3 {
		slog.Error("usage: ferretdb LISTEN-ADDRESS POSTGRES-URL|file:FOLDER/")
		os.Exit(2)
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	config := &ferretdb.Config{Listener: ferretdb.ListenerConfig{TCP: os.Args[1]}, Logger: logger}
	if strings.HasPrefix(os.Args[2], "file:") {
		config.Handler, config.SQLiteURL = "sqlite", os.Args[2]
	} else {
		config.Handler, config.PostgreSQLURL = "postgresql", os.Args[2]
	}
	server, err := ferretdb.New(config)
	if err != nil {
		logger.Error("start", "error", err)
		os.Exit(1)
	}
	ends, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := server.Run(ends); err != nil {
		logger.Error("run", "error", err)
		os.Exit(1)
	}
}

// Package vulndb is `palisade vulndb`: it imports security advisories into the store that the scanner reads, and says what is in it.
// Data in: OSV records in zips, directories and files; data out: the store, and words or JSON for people.
package vulndb

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/palisade-sec/palisade/internal/advisory"
	"github.com/palisade-sec/palisade/internal/escape"
)

// New returns the command. output is where the flag -o is kept, "text" or "json"; usage marks an error as one of what was typed.
func New(output *string, usage func(error) error) *cobra.Command {
	c := &command{output: output, usage: usage}
	cmd := &cobra.Command{
		Use:   "vulndb",
		Short: "Import security advisories, and show which are known",
		Long: `The scanner finds vulnerabilities by comparing an image's packages with advisories in OSV's form. It has no network: you
download the advisories, on this machine or another, and import them here. The store of them is replaced as a whole.

The address to download from, and what matching does and does not do, is in docs/vulnerabilities.md.`,
		Example: "  palisade vulndb import Go.zip PyPI.zip Debian.zip\n  palisade vulndb status",
		Args:    c.arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().StringVar(&c.directory, "directory", advisory.Directory, "directory of the store")
	cmd.AddCommand(c.newImport(), c.newStatus())
	return cmd
}

type command struct {
	output    *string
	usage     func(error) error
	directory string
}

// arguments wants a number of arguments; most is 0 for none.
func (c *command) arguments(least, most int, missing string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return c.usage(fmt.Errorf("name %s; see `%s --help`", missing, cmd.CommandPath()))
		case least == 0 && len(args) > most:
			return c.usage(fmt.Errorf("unexpected argument %q: see `%s --help`", args[0], cmd.CommandPath()))
		}
		return nil
	}
}

func (c *command) newImport() *cobra.Command {
	return &cobra.Command{
		Use:   "import PATH...",
		Short: "Replace the store with the advisories in zips, directories and .json files",
		Long: `Reads every OSV record in the zips, directories and .json files that you name, and puts them in force together, in place of all
that was imported before: name everything that you want to have. Advisories that were withdrawn are left out. Of two records with one
id the one that was modified later counts.

A record that cannot be read is listed, and left out. A file that cannot be read, or a crash, leaves the store as it was. The
scanner goes on with the new store by itself.`,
		Example: `  palisade vulndb import Go.zip Debian.zip
  palisade vulndb import /srv/osv                # every .zip and .json below it
  palisade vulndb import GHSA-jfh8-c2jp-5v3q.json --directory /tmp/advisories
  palisade vulndb import Go.zip -o json | jq .faults`,
		Args: c.arguments(1, 0, "a zip, a directory or a .json file of OSV records"),
		RunE: func(cmd *cobra.Command, paths []string) error {
			m, err := advisory.Import(cmd.Context(), paths, c.directory, func(p advisory.Progress) {
				fmt.Fprintln(cmd.ErrOrStderr(), progressLine(p))
			})
			if errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("%w: try sudo, or another --directory", err)
			}
			if err != nil {
				return err
			}
			if *c.output == "json" {
				return c.json(cmd.OutOrStdout(), m)
			}
			return c.text(cmd.OutOrStdout(), m)
		},
	}
}

func progressLine(p advisory.Progress) string {
	if p.Total > p.Records {
		return fmt.Sprintf("%s: %d of %d records", shown(p.Path), p.Records, p.Total)
	}
	return fmt.Sprintf("%s: %d records", shown(p.Path), p.Records)
}

func (c *command) newStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how many advisories there are, of which ecosystems, from where and since when",
		Long: `Reads the whole store, so that a damaged one is found. The exit code is 1 if there is none, or it is damaged.

Advisories without a rating are those that neither say how severe they are nor have an alias in the store that does: a policy's rule by
severity sees them as unrated. Go's own database rates nothing; import GitHub's advisories with it.`,
		Example: "  palisade vulndb status\n  palisade vulndb status -o json | jq .ecosystems",
		Args:    c.arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := advisory.Open(c.directory)
			if err != nil {
				return err
			}
			defer store.Close()
			if err := store.Verify(cmd.Context()); err != nil {
				return err
			}
			if *c.output == "json" {
				return c.json(cmd.OutOrStdout(), store.Metadata())
			}
			return c.text(cmd.OutOrStdout(), store.Metadata())
		},
	}
}

func (c *command) json(w io.Writer, m advisory.Metadata) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Directory string `json:"directory"`
		advisory.Metadata
	}{c.directory, m})
}

func (c *command) text(w io.Writer, m advisory.Metadata) error {
	fmt.Fprintf(w, "%d advisories in %s, imported at %s\n", m.Advisories, c.directory, m.ImportedAt.Format(time.RFC3339))
	for _, s := range m.Sources {
		fmt.Fprintf(w, "  from %s: %d records\n", shown(s.Path), s.Records)
		if s.Others > 0 {
			fmt.Fprintf(w, "    %d other files were left out\n", s.Others)
		}
	}
	for _, line := range []struct {
		count int
		what  string
	}{
		{m.Unrated, "without a rating, their own or an alias's: a rule by severity sees them as unrated"},
		{m.Withdrawn, "withdrawn records were left out"},
		{m.Replaced, "records were there twice: the later counts"},
		{m.Empty, "records about no package were left out"},
		{m.LooseAliases, "aliases were not followed: one vulnerability would have too many ids"},
		{m.GitRanges, "ranges of commits are not matched"},
		{m.Faults, "records could not be read, and were left out:"},
	} {
		if line.count > 0 {
			fmt.Fprintf(w, "  %d %s\n", line.count, line.what)
		}
	}
	for _, line := range m.FaultLines {
		fmt.Fprintf(w, "    %s\n", shown(line))
	}
	if more := m.Faults - len(m.FaultLines); more > 0 {
		fmt.Fprintf(w, "    and %d more\n", more)
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ECOSYSTEM\tADVISORIES")
	for _, ecosystem := range slices.Sorted(maps.Keys(m.Ecosystems)) {
		fmt.Fprintf(table, "%s\t%d\n", shown(ecosystem), m.Ecosystems[ecosystem])
	}
	return table.Flush()
}

// shown is foreign text that cannot steer a terminal.
func shown(text string) string { return string(escape.Append(nil, text)) }

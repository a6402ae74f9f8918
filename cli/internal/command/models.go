package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	correlatorv1 "github.com/palisade-sec/palisade/api/palisade/correlator/v1"
	"github.com/palisade-sec/palisade/cli/internal/show"
)

// maxModelBytes bounds a file to import; the correlator takes no more.
const maxModelBytes = 2 << 20

func newModels(opts *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "models",
		Short: "Show and change what images were learned to do",
		Long: `A model is what the containers of one image, by its digest, were seen to do: programs, written directories, ports, domains,
capabilities, system calls. It learns, then is in dry run (what was not learned is counted), then active (it is a finding).

A digest may be cut short, as long as it names one model. Models are off unless the node is started with --models.`,
		Example: "  palisade models list\n  palisade models show 3f1a9c",
		Args:    noArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newModelsList(opts), newModelsShow(opts), newModelsExport(opts), newModelsImport(opts), newModelsRelearn(opts), newModelsFreeze(opts))
	return cmd
}

// oneDigest wants one argument.
func oneDigest(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError{fmt.Errorf("name one image digest, as `palisade models list` shows it: see `%s --help`", cmd.CommandPath())}
	}
	return nil
}

// ask calls one method of the correlator's.
func ask[Client, Request, Answer any](cmd *cobra.Command, opts *options, client func(grpc.ClientConnInterface) Client,
	method func(Client, context.Context, Request, ...grpc.CallOption) (Answer, error), request Request,
) (Answer, error) {
	var none Answer
	conn, err := opts.dial("correlator")
	if err != nil {
		return none, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), statusTimeout)
	defer cancel()
	answer, err := method(client(conn), ctx, request)
	if err != nil {
		return none, opts.explain("correlator", err)
	}
	return answer, nil
}

// printJSON writes a message, fields as in its .proto.
func printJSON(w io.Writer, m proto.Message) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true, Indent: "  "}.Marshal(m)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", raw)
	return err
}

// printModel writes one model in short.
func (o *options) printModel(w io.Writer, m *correlatorv1.Model) error {
	if o.output == "json" {
		return printJSON(w, m)
	}
	return show.Models(w, []*correlatorv1.Model{m})
}

func newModelsList(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the models and the state each is in",
		Example: "  palisade models list\n  palisade models list -o json | jq -r '.models[] | select(.state == \"active\") | .image'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			answer, err := ask(cmd, opts, correlatorv1.NewModelServiceClient, correlatorv1.ModelServiceClient.ListModels,
				&correlatorv1.ListModelsRequest{})
			switch {
			case err != nil:
				return err
			case opts.output == "json":
				return printJSON(cmd.OutOrStdout(), answer)
			}
			return show.Models(cmd.OutOrStdout(), answer.GetModels())
		},
	}
}

func export(cmd *cobra.Command, opts *options, digest string) (*correlatorv1.ExportModelResponse, error) {
	return ask(cmd, opts, correlatorv1.NewModelServiceClient, correlatorv1.ModelServiceClient.ExportModel,
		&correlatorv1.ExportModelRequest{ImageDigest: digest})
}

func newModelsShow(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "show DIGEST",
		Short:   "Show how a model was learned, and what was met that it does not have",
		Example: "  palisade models show 3f1a9c\n  palisade models show 3f1a9c -o json | jq '.anomalies'",
		Args:    oneDigest,
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := export(cmd, opts, args[0])
			switch {
			case err != nil:
				return err
			case opts.output == "json":
				return printJSON(cmd.OutOrStdout(), answer)
			}
			return show.Model(cmd.OutOrStdout(), answer)
		},
	}
}

func newModelsExport(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "export DIGEST",
		Short:   "Print a model as YAML, for palisade models import on this node or another",
		Example: "  palisade models export 3f1a9c > web.yaml",
		Args:    oneDigest,
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := export(cmd, opts, args[0])
			if err != nil {
				return err
			}
			if opts.output == "json" {
				return printJSON(cmd.OutOrStdout(), answer)
			}
			_, err = cmd.OutOrStdout().Write(answer.GetYaml())
			return err
		},
	}
}

func newModelsImport(opts *options) *cobra.Command {
	return &cobra.Command{
		Use:     "import FILE",
		Short:   "Put a model from a file in the place of the one of the same image (- is standard input)",
		Example: "  palisade models import web.yaml\n  ssh other palisade models export 3f1a9c | palisade models import -",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("models import: name the file to read, or -")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := readModel(cmd.InOrStdin(), args[0])
			if err != nil {
				return fmt.Errorf("models import: %w", err)
			}
			answer, err := ask(cmd, opts, correlatorv1.NewModelControlServiceClient, correlatorv1.ModelControlServiceClient.ImportModel,
				&correlatorv1.ImportModelRequest{Yaml: raw})
			if err != nil {
				return err
			}
			return opts.printModel(cmd.OutOrStdout(), answer.GetModel())
		},
	}
}

func readModel(in io.Reader, path string) ([]byte, error) {
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		in = file
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxModelBytes+1))
	if err == nil && len(raw) > maxModelBytes {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxModelBytes)
	}
	return raw, err
}

func newModelsRelearn(opts *options) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:     "relearn DIGEST",
		Short:   "Let a model learn again",
		Example: "  palisade models relearn 3f1a9c\n  palisade models relearn 3f1a9c --keep   # learn what is new, forget nothing",
		Args:    oneDigest,
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := ask(cmd, opts, correlatorv1.NewModelControlServiceClient, correlatorv1.ModelControlServiceClient.RelearnModel,
				&correlatorv1.RelearnModelRequest{ImageDigest: args[0], Keep: keep})
			if err != nil {
				return err
			}
			return opts.printModel(cmd.OutOrStdout(), answer.GetModel())
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep what is known")
	return cmd
}

func newModelsFreeze(opts *options) *cobra.Command {
	var thaw bool
	cmd := &cobra.Command{
		Use:     "freeze DIGEST",
		Short:   "Make a model active now, never to learn again",
		Example: "  palisade models freeze 3f1a9c\n  palisade models freeze 3f1a9c --thaw",
		Args:    oneDigest,
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := ask(cmd, opts, correlatorv1.NewModelControlServiceClient, correlatorv1.ModelControlServiceClient.FreezeModel,
				&correlatorv1.FreezeModelRequest{ImageDigest: args[0], Thaw: thaw})
			if err != nil {
				return err
			}
			return opts.printModel(cmd.OutOrStdout(), answer.GetModel())
		},
	}
	cmd.Flags().BoolVar(&thaw, "thaw", false, "let it be relearned again")
	return cmd
}

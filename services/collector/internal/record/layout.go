package record

// Offsets and sizes of the structs in bpf/event.h. A test compares each with what clang made of the C.
const (
	headerKind         = 4
	headerBoottime     = 8
	headerStart        = 16
	headerParentStart  = 24
	headerCgroup       = 32
	headerCapabilities = 40
	headerTGID         = 48
	headerTID          = 52
	headerParentTGID   = 56
	headerUID          = 60
	headerGID          = 64
	headerEffectiveUID = 68
	headerEffectiveGID = 72
	headerLoginUID     = 76
	headerMountNS      = 80
	headerPIDNS        = 84
	headerNetNS        = 88
	headerUserNS       = 92
	headerComm         = 96
	headerResult       = 112
	headerFlags        = 120
	headerGuard        = 124
	headerSize         = 128
	commSize           = 16

	fileInode   = 0
	fileDevice  = 8
	fileMode    = 12
	fileFlags   = 16
	filePathLen = 20
	fileBaseLen = 24
	fileSize    = 32

	execFile      = headerSize
	execTTY       = 160
	execSession   = 164
	execArgvBytes = 168
	execArgvLen   = 172
	execCwdLen    = 176
	execFlags     = 180
	execGroup     = 184
	execInnerPID  = 188
	execInnerPGID = 192
	execSize      = 200

	timesCtime = 0
	timesMtime = 8
	timesSize  = 16

	forkChildStart  = 128
	forkChildCgroup = 136
	forkChildTGID   = 144
	forkSize        = 152

	exitWaitStatus = 128
	exitSize       = 136

	fileOpenFile       = headerSize
	fileOpenFlags      = 160
	fileOpenGivenLen   = 164
	fileOpenGivenFlags = 166
	fileOpenSize       = 168

	changeFile    = headerSize
	changeTarget  = 160
	changeBytes   = 192
	changeFlags   = 200
	changeMode    = 208
	changeUID     = 212
	changeGID     = 216
	changeTextLen = 220
	changeFSLen   = 224
	changeSize    = 232

	memoryFile     = headerSize
	memoryFlags    = 160
	memoryWritable = 164
	memoryNameLen  = 168
	memorySize     = 176

	socketFamily     = 128
	socketProtocol   = 130
	socketLocalPort  = 132
	socketRemotePort = 134
	socketLocal      = 136
	socketRemote     = 152
	socketFlags      = 168
	socketType       = 172
	socketUnixLen    = 174
	socketSize       = 176

	duplicateCall   = 176
	duplicateSource = 180
	duplicateSize   = 184

	dnsFamily     = 128
	dnsLocalPort  = 130
	dnsRemotePort = 132
	dnsMessageLen = 134
	dnsLocal      = 136
	dnsRemote     = 152
	dnsWholeLen   = 168
	dnsProtocol   = 172
	dnsSize       = 176

	signalTargetStart = 128
	signalTargetTGID  = 136
	signalNumber      = 140
	signalSize        = 144

	privilegeArgs        = 128
	privilegeTargetStart = 152
	privilegeTargetTGID  = 160
	privilegeArgCount    = 164
	privilegeNameLen     = 168
	privilegeSize        = 176
	privilegeMaxArgs     = 3
)

// Bits of the flags in the structs.
const (
	headerResultKnown = 1 << 0
	headerCompat32    = 1 << 1
	headerX32         = 1 << 2
	headerKilled      = 1 << 3

	fileUnlinked      = 1 << 0
	fileMemfd         = 1 << 1
	fileUpperLayer    = 1 << 2
	filePathTruncated = 1 << 3
	filePathArgument  = 1 << 4

	execArgvTruncated  = 1 << 0
	execArgvUnreadable = 1 << 1
	execSetuid         = 1 << 2
	execSetgid         = 1 << 3
	execCapabilities   = 1 << 4
	execSecure         = 1 << 5
	execScript         = 1 << 6
	execTimes          = 1 << 7

	givenArgument   = 1 << 0
	givenKernel     = 1 << 1
	givenTruncated  = 1 << 2
	givenUnreadable = 1 << 3

	socketRemoteIsGiven = 1 << 0
	socketAccepted      = 1 << 1
)

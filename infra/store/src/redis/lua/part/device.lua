-- A device is kept as: environment (or `x` when only its name is left), name, generation, first seen, user, profile.
-- A name leads to the ordinal of a live device, and to -1 minus the ordinal of a test device.
local function device_named(names, name)
  local known = tonumber(call('HGET', names, name))
  if known and known < 0 then return -1 - known end
  return known
end

local function slot(key, kind, ordinal)
  return beside(key, kind) .. struct.pack('>I4', math.floor(ordinal / DEVICES_A_BLOCK)), ordinal % DEVICES_A_BLOCK
end

local function device_read(key, ordinal)
  local block, field = slot(key, 'd', ordinal)
  local record = call('HGET', block, field)
  if not record or string.sub(record, 1, 1) == 'x' then return nil end
  local env, name, generation, seen, user, rest = struct.unpack('>c1Bc0I4I8Bc0', record)
  return { env = env, name = name, generation = generation, seen = seen, user = user, profile = string.sub(record, rest) }
end

local function device_write(key, ordinal, device)
  local block, field = slot(key, 'd', ordinal)
  local record = struct.pack('>c1Bc0I4I8Bc0', device.env, #device.name, device.name, device.generation, device.seen,
    #device.user, device.user) .. device.profile
  call('HSET', block, field, record)
  return record
end

local function device_owned(key, ordinal, device, owned)
  if device.user ~= '' then
    call(owned and 'SADD' or 'SREM', beside(key, 'u') .. device.env .. device.user, digits(ordinal))
  end
end

-- Those that changed last are kept: CHANGES_MAX of them, or a few more.
local function device_changed(key, ordinal)
  call('XADD', beside(key, 'K'), 'MAXLEN', '~', 1048576, '*', 'd', digits(ordinal))
end

local function device_live(key, ordinal, env, live)
  local bitmap = beside(key, 'l') .. env .. struct.pack('>I2', math.floor(ordinal / 65536))
  call('SETBIT', bitmap, ordinal % 65536, live)
end

